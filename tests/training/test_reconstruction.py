"""The stored reconstructor completes images as in training."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arl.files import read_json
from arl.model_config import EncoderConfig
from arl.models.decoder import patchify
from arl.objectives.masking import random_masking
from arl.objectives.mim import mim_loss, normalize_patches
from arl.params import Params
from arl.stages.pretrain import _reconstructor, pretrain
from arl.training.checkpoint import load_encoder, save_model
from arl.training.reconstruction import has_reconstructor, load_reconstructor, save_pretrained

_OTHER = runpy.run_path(str(Path(__file__).parent / "test_pretrainer.py"))
inputs, pretrainer = _OTHER["inputs"], _OTHER["pretrainer"]
CONFIG = EncoderConfig(
    16, {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
)


@pytest.mark.parametrize("drop_masked", [True, False])
@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("self_distillation", [True, False])
def test_a_stored_decoder_has_the_loss_of_training(
    tmp_path: Path, drop_masked: bool, norm_pix_loss: bool, self_distillation: bool
) -> None:
    """With a teacher, which the release is, the decoder's own encoder is the student."""
    trained = pretrainer(
        drop_masked=drop_masked,
        norm_pix_loss=norm_pix_loss,
        self_distillation=self_distillation,
        adversarial=False,
    ).eval()
    views, num_crops = inputs(), trained.objective.global_crops_number
    views = replace(
        views, global_crops=views.global_crops[: 3 * num_crops], noise=views.noise[: 3 * num_crops]
    )
    with torch.no_grad():
        for parameter in trained.encoder.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))  # away from the teacher
        expected = trained(views, 0.5)["mim"]
    save_pretrained(
        tmp_path / "out", trained.released_encoder(), CONFIG, trained=_reconstructor(trained)
    )
    model, config = load_reconstructor(tmp_path / "out")
    assert config.size == 16
    model.eval()
    masking = random_masking(views.noise, 0.5)
    whole = model(views.global_crops, views.anatomy.repeat(num_crops), masking)
    before, after = patchify(views.global_crops, 4), patchify(whole, 4)
    torch.testing.assert_close(after[~masking.mask], before[~masking.mask])
    if norm_pix_loss:
        target, mean, std = normalize_patches(before)
        before, after = target, (after - mean) / std
    torch.testing.assert_close(
        mim_loss(after, before, masking.mask), expected, rtol=1e-4, atol=1e-5
    )


def test_pretraining_stores_it_for_pictures_only(
    tiny_params: Params, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARL_RUNS", str(tmp_path / "runs"))
    pretrain(
        tiny_params,
        corpus=tiny_corpus,
        checkpoint=tmp_path / "full",
        metrics=tmp_path / "full.json",
    )
    names = {file.name for file in (tmp_path / "full").iterdir()}
    assert names == {
        "model.safetensors",
        "config.json",
        "reconstruction.safetensors",
        "reconstruction.json",
    }
    assert read_json(tmp_path / "full" / "reconstruction.json")["drop_masked"]
    model, _ = load_reconstructor(tmp_path / "full")
    teacher, _ = load_encoder(tmp_path / "full")
    assert not torch.equal(model.encoder.patch_embed.proj.weight, teacher.patch_embed.proj.weight)
    dino = replace(
        tiny_params, objective=replace(tiny_params.objective, mim=False, adversarial=False)
    )
    pretrain(dino, corpus=tiny_corpus, checkpoint=tmp_path / "dino", metrics=tmp_path / "dino.json")
    assert not has_reconstructor(tmp_path / "dino")
    with pytest.raises(
        ValueError, match="dino has no decoder: it was not pretrained here with masked images"
    ):
        load_reconstructor(tmp_path / "dino")


def test_a_decoder_of_another_size_is_refused(tmp_path: Path) -> None:
    trained = pretrainer()
    sizes = {"decoder_dim": 16, "depth": 1, "heads": 2, "norm_pix_loss": False, "drop_masked": True}
    save_model(
        tmp_path / "odd",
        trained.released_encoder(),
        CONFIG,
        documents={"reconstruction.json": sizes},
        beside={"reconstruction.safetensors": torch.nn.ModuleDict({"decoder": trained.decoder})},
    )
    with pytest.raises(ValueError, match=r"odd does not fit its own config\.json"):
        load_reconstructor(tmp_path / "odd")
