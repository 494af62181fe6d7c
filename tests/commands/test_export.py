from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from arl.commands.export import export
from arl.files import read_json, sha256
from arl.models.export import export_onnx
from arl.params import load
from arl.training.checkpoint import load_encoder
from arl.training.task_models import load_task_model

PARAMS = load([], Path(__file__).parents[2] / "params.yaml")


def answers(file: Path, batch: int = 5) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    image, anatomy = torch.randn(batch, 1, 32, 32), torch.arange(batch) * 4
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return (
        session.run(None, {"image": image.numpy(), "anatomy": anatomy.numpy()})[0],
        image,
        anatomy,
    )


def test_the_folder_has_hugging_faces_layout_and_a_graph_that_answers_alike(
    released: Any, tmp_path: Path
) -> None:
    export(PARAMS, task="breast", registry=str(released.registry), out=tmp_path / "out")
    theirs, image, anatomy = answers(tmp_path / "out" / "model.onnx")
    model, _ = load_task_model(released.models / "breast")
    with torch.no_grad():
        np.testing.assert_allclose(theirs, model.eval()(image, anatomy).numpy(), atol=1e-4)
    config = read_json(tmp_path / "out" / "config.json")
    about = read_json(released.evaluations / "breast" / "metrics.json")
    assert config["id2label"] == {"0": "benign", "1": "malignant"}
    assert config["temperature"] == about["temperature"]
    assert config["threshold"] == about["threshold"]
    assert config["architectures"] == ["Classifier"]
    assert config["onnx"]["greatest_difference"] <= 1e-4
    assert read_json(tmp_path / "out" / "preprocessor_config.json")["image_mean"] == [0.25]
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: arl\npipeline_tag: image-classification\n")
    assert "not a medical device" in card
    assert "with a temperature of" in card
    # the folder loads as a model of ours
    load_task_model(tmp_path / "out")
    assert sha256(tmp_path / "out/model.safetensors") == sha256(
        released.models / "breast/model.safetensors"
    )


@pytest.mark.slow
def test_an_encoder_is_exported_too(released: Any, tmp_path: Path) -> None:
    export(PARAMS, model=released.checkpoint, out=tmp_path / "out")
    theirs, image, anatomy = answers(tmp_path / "out" / "model.onnx")
    encoder, _ = load_encoder(tmp_path / "out")
    with torch.no_grad():
        np.testing.assert_allclose(theirs, encoder.eval()(image, anatomy).numpy(), atol=1e-4)
    assert "Nothing of this model was released" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_a_segmentation_is_exported_too(released: Any, tmp_path: Path) -> None:
    model, _ = load_task_model(released.models / "lv")
    assert export_onnx(model, 32, tmp_path / "model.onnx") <= 1e-4


class Uncertain(torch.nn.Module):
    """A graph cannot answer like this."""

    def forward(self, image: torch.Tensor, anatomy: torch.Tensor) -> torch.Tensor:
        shift = 0.0 if torch.compiler.is_exporting() else 1.0
        return image.mean((1, 2, 3)) + anatomy + shift


def test_a_graph_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"onnxruntime differs by 1 from the model, more than 0\.0001"
    ):
        export_onnx(Uncertain(), 32, tmp_path / "model.onnx")
