"""`arl baseline import`: a checkpoint folder that the other stages take for one of ours."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from arl.commands.baseline import baseline
from arl.commands.probe import probe
from arl.files import read_json, sha256
from arl.params import Params
from arl.stages.evaluate import evaluate
from arl.stages.finetune import finetune
from arl.training.checkpoint import load_encoder

WRITE = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "models" / "baselines" / "layouts.py"))
)


def small(params: Params) -> Params:
    """Images of three patches a side, as in the fixtures."""
    params.data.size, params.probe.neighbours = 48, 5
    return params


def test_the_report_says_what_was_read(
    tiny_params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, reference = WRITE.mae_training(tmp_path)
    baseline(small(tiny_params), "import", "dmae", [file], out=tmp_path / "dmae")
    report = read_json(tmp_path / "dmae" / "report.json")
    assert report["sha256"] == sha256(file)
    assert report["licence"] == "CC-BY-NC-4.0"
    assert report["layout"] == "official"
    assert report["container"] == "model"
    assert "decoder_pos_embed" in report["dropped"]
    assert report["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert report["input_transform"] == "gaussian_blur(1.1)"
    assert report["pooling"] == "gap"
    assert report["parameters"] == sum(parameter.numel() for parameter in reference.parameters())
    assert "dmae, official file" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dino v3", "usfm", "siglip2, timm", "ibot"])
def test_a_baseline_is_probed_fine_tuned_and_evaluated_like_our_own(
    name: str, tiny_params: Params, tiny_corpus: Path, tmp_path: Path
) -> None:
    method, write = WRITE.LAYOUTS[name]
    params = small(tiny_params)
    baseline(params, "import", method, [write(tmp_path).file], out=tmp_path / "encoder")
    probe(
        params,
        task="breast",
        corpus=tiny_corpus,
        checkpoint=tmp_path / "encoder",
        metrics=tmp_path / "probe.json",
    )
    assert 0 <= read_json(tmp_path / "probe.json")["linear"]["auroc"]["value"] <= 1
    finetune(
        params,
        task="breast",
        corpus=tiny_corpus,
        checkpoint=tmp_path / "encoder",
        model=tmp_path / "model",
    )
    evaluate(
        params,
        task="breast",
        corpus=tiny_corpus,
        model=tmp_path / "model",
        evaluation=tmp_path / "evaluation",
    )
    assert (tmp_path / "evaluation" / "metrics.json").is_file()


def test_supervised_is_the_configured_model_with_random_weights(
    tiny_params: Params, tmp_path: Path
) -> None:
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        baseline(replace(tiny_params, seed=seed), "import", "supervised", [], out=tmp_path / out)
    assert sha256(tmp_path / "a" / "model.safetensors") == sha256(
        tmp_path / "b" / "model.safetensors"
    )
    assert sha256(tmp_path / "a" / "model.safetensors") != sha256(
        tmp_path / "c" / "model.safetensors"
    )
    encoder, config = load_encoder(tmp_path / "a")
    assert encoder.embed_dim == tiny_params.model.embed_dim
    assert config.size == 32


def test_wrong_words_are_refused(tiny_params: Params, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown action 'export': the only one is import"):
        baseline(tiny_params, "export", "mae", [], out=tmp_path)
    with pytest.raises(ValueError, match="baseline mae takes 1 file, got 0"):
        baseline(tiny_params, "import", "mae", [], out=tmp_path)
    with pytest.raises(ValueError, match="baseline supervised takes 0 files, got 1"):
        baseline(tiny_params, "import", "supervised", [tmp_path], out=tmp_path)
