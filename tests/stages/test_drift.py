"""New batches like the old ones, with another gain, from a new site, too small, or none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_writer import BatchWriter
from arl.files import tree_hash
from arl.model_config import EncoderConfig
from arl.models.avit import AViT
from arl.monitoring.drift_result import DriftResult
from arl.params import Params
from arl.stages.drift import drift
from arl.training.checkpoint import save_model

ENCODER = {
    "img_size": 16,
    "patch_size": 8,
    "embed_dim": 12,
    "depth": 1,
    "num_heads": 3,
    "anatomy_hidden": 4,
}


def write(
    corpus: Path,
    source: str,
    batch: str,
    patients: int,
    *,
    seed: int,
    gain: float = 1,
    site: str | None = None,
    gains: dict[str, float] | None = None,
) -> None:
    """Two alike images of each patient; every tenth patient in test, the others in train.

    `gains` are those of several probes, of which the patients take turns.
    """
    probes = list((gains or {"linear": gain}).items())
    rng = np.random.default_rng(seed)
    with BatchWriter(
        corpus,
        source,
        batch,
        64,
        origin=BatchOrigin(licence="none", citation="tests"),
    ) as writer:
        for patient in range(patients):
            level = rng.normal(90, 12)
            probe, factor = probes[patient % len(probes)]
            for image in range(2):
                pixels = (rng.normal(level, 20, (40, 48)) * factor).clip(0, 255).astype(np.uint8)
                writer.accept(
                    pixels,
                    key=f"{batch}-{patient}-{image}",
                    anatomy="breast",
                    patient=f"{batch}-{patient}",
                    site=site,
                    probe=probe,
                    device="ACME",
                    splits={"default": "test" if patient % 10 == 0 else "train"},
                )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = EncoderConfig(16, ENCODER)
    save_model(tmp_path / "checkpoint", AViT(**ENCODER), config)
    return tmp_path / "checkpoint"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write(tmp_path / "corpus", "clinic", "0000", 40, seed=3)
    return tmp_path / "corpus"


def read_result(folder: Path) -> DriftResult:
    return DriftResult.read(folder / "drift.json")


def test_a_batch_like_the_others(
    tiny_params: Params,
    corpus: Path,
    checkpoint: Path,
    tmp_path: Path,
    open_page: Callable[..., Any],
) -> None:
    write(corpus, "clinic", "0001", 20, seed=1)
    drift(tiny_params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
    result = read_result(tmp_path / "out")
    assert result.decision == "no-drift"
    assert result.batches == ["clinic/0001"]
    assert (result.images, result.patients, result.reference_patients) == (40, 20, 36)
    assert result.sites[0].compared_with == "its own training images"
    for width in (1280, 390):
        opened = open_page(tmp_path / "out/index.html", width)
        assert (opened.errors, opened.requests, opened.overflow) == ([], [], 0)
    assert "No drift" in opened.text


def test_a_batch_with_another_gain_drifts_and_a_rerun_says_the_same(
    tiny_params: Params, corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    write(corpus, "clinic", "0001", 20, seed=1, gain=1.6)
    hashes = set()
    for _ in range(2):
        drift(tiny_params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
        hashes.add(tree_hash(tmp_path / "out"))
    assert len(hashes) == 1
    result = read_result(tmp_path / "out")
    assert result.decision == "drift"
    assert result.tabular is not None
    assert {column.column for column in result.tabular.columns if column.drifted} >= {
        "mean",
        "std",
    }
    assert result.sites[0].drifted
    assert "too few sites are known to say how far apart sites are" in result.reasons[0]
    assert result.tabular.decides
    assert "columns drifted: mean, std" in result.reasons[-1]
    pictures = {"charts.json"}
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {"drift.json", "index.html", "evidently.html", "evidently.json", *pictures}


def test_a_site_that_is_new_is_compared_with_its_anatomy_elsewhere(
    tiny_params: Params, corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    write(corpus, "annex", "0000", 12, seed=4, site="annex hospital")
    params = replace(
        tiny_params, drift=replace(tiny_params.drift, batches=["annex/0000"], min_images=24)
    )
    drift(params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
    result = read_result(tmp_path / "out")
    assert result.decision == "no-drift"
    [site] = result.sites
    assert (site.site, site.compared_with) == (
        "annex hospital",
        "training images of the same anatomies at other sites",
    )


@pytest.mark.parametrize(("gain", "decision"), [(1.15, "no-drift"), (2.2, "drift")])
def test_a_new_site_drifts_only_if_it_is_further_away_than_sites_are(
    tiny_params: Params, corpus: Path, checkpoint: Path, tmp_path: Path, gain: float, decision: str
) -> None:
    """Four known sites differ in their gain; the new one does so measurably, within what is usual
    or not.
    """
    for number, other in enumerate((0.8, 1.2, 1.4)):
        write(
            corpus,
            f"other{number}",
            "0000",
            20,
            seed=10 + number,
            gain=other,
            site=f"hospital {number}",
        )
    write(corpus, "annex", "0000", 40, seed=2, site="annex hospital", gain=gain)
    params = replace(tiny_params, drift=replace(tiny_params.drift, batches=["annex/0000"]))
    drift(params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
    result = read_result(tmp_path / "out")
    assert set(result.site_distances) == {"clinic", "hospital 0", "hospital 1", "hospital 2"}
    [site] = result.sites
    assert site.p_adjusted < 0.05
    assert site.usual == pytest.approx(
        np.quantile(list(result.site_distances.values()), 0.95), rel=1e-4
    )
    assert result.decision == decision
    assert (site.mmd2 > site.usual) == (decision == "drift")
    words = (
        "further than known sites are" if decision == "drift" else "no more than known sites differ"
    )
    assert words in result.reasons[0]


def test_one_probe_of_several_that_moved_is_found_and_named(
    tiny_params: Params, corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    write(corpus, "clinic", "0001", 40, seed=5, gains={"linear": 1.0, "convex": 1.0})
    write(corpus, "clinic", "0002", 40, seed=6, gains={"linear": 1.0, "convex": 1.6})
    drift(tiny_params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
    parts = {site.part: site for site in read_result(tmp_path / "out").sites}
    assert set(parts) == {"", "probe convex", "probe linear"}
    assert (parts["probe convex"].drifted, parts["probe linear"].drifted) == (True, False)
    assert parts["probe convex"].compared_with == "its own training images"
    assert parts["probe convex"].reference_patients == 20


@pytest.mark.parametrize(
    ("patients", "reason"), [(14, "28 new images, 30 are needed"), (7, "7 new patients, 8")]
)
def test_a_small_batch_is_too_few(
    tiny_params: Params, corpus: Path, checkpoint: Path, tmp_path: Path, patients: int, reason: str
) -> None:
    write(corpus, "clinic", "0001", patients, seed=1)
    drift(tiny_params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
    result = read_result(tmp_path / "out")
    assert result.decision == "too-few"
    assert any(reason in text for text in result.reasons)
    assert not (tmp_path / "out/evidently.html").exists()


def test_one_batch_alone_is_no_new_data(
    tiny_params: Params, corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    drift(tiny_params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
    assert read_result(tmp_path / "out").decision == "no-new-data"
    assert (tmp_path / "out/index.html").is_file()


def test_an_unknown_batch_is_named(
    tiny_params: Params, corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    params = replace(tiny_params, drift=replace(tiny_params.drift, batches=["clinic/0007"]))
    with pytest.raises(ValueError, match=r"has no batch clinic/0007; it has \['clinic/0000'\]"):
        drift(params, corpus=corpus, checkpoint=checkpoint, drift=tmp_path / "out")
    assert not (tmp_path / "out").exists()
