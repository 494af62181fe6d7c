"""Export a model in Hugging Face's layout and as ONNX."""

import shutil
from pathlib import Path

from torch import nn

from arl import console
from arl.corpus.anatomy import ANATOMIES
from arl.evaluation.model_card import LIMITS
from arl.files import atomic_directory, write_json
from arl.inference.model import Chosen, chosen_model
from arl.loading.transforms import MEAN, STD
from arl.model_config import ModelConfig, TaskModelConfig, read_config
from arl.models.export import OPSET, export_onnx
from arl.params import Params
from arl.training.checkpoint import load_encoder
from arl.training.task_models import load_task_model


def export(
    params: Params,
    *,
    out: Path,
    task: str = "",
    model: Path | None = None,
    evaluation: Path | None = None,
    registry: str = "registry",
) -> None:
    """Export a model in the layout of Hugging Face, with an ONNX graph.

    The model is the champion for --task, or the folder --model (a task model or an encoder). The
    folder gets model.safetensors, config.json, preprocessor_config.json, README.md (the model card)
    and model.onnx, whose outputs are compared with the model's to 1e-4.

    Args:
        out: The folder.
        task: Task whose champion is exported.
        model: Folder of a model, in place of the champion.
        evaluation: Folder of the evaluation of --model.
        registry: The registry, a folder or s3://bucket/prefix.

    Raises:
        ValueError: no model, an evaluation of another model, or an ONNX graph that answers
            otherwise.

    Writes:
        out

    Examples:
        arl export --task breast --out out/export/breast
        arl export --model out/pretrain --out out/export/encoder
    """
    chosen = chosen_model(model, evaluation, registry, task, params.release.signed)
    is_task = isinstance(read_config(chosen.folder), TaskModelConfig)
    network, config = (load_task_model if is_task else load_encoder)(chosen.folder)
    with atomic_directory(out) as folder:
        # Weights and graph are written into one folder that appears whole or not at all.
        difference = export_onnx(network, config.size, folder / "model.onnx")
        shutil.copyfile(chosen.folder / "model.safetensors", folder / "model.safetensors")
        write_json(folder / "config.json", _config(network, config, chosen, difference))
        write_json(folder / "preprocessor_config.json", _preprocessor(config))
        (folder / "README.md").write_text(_card(config, chosen), encoding="utf-8")
    console.info(
        f"{out}: model.safetensors, model.onnx (differs by {difference:.1e}),"
        " configurations and card"
    )


def _config(
    network: nn.Module, config: ModelConfig, chosen: Chosen, difference: float
) -> dict[str, object]:
    metrics = chosen.evaluation
    classes = config.task.classes if isinstance(config, TaskModelConfig) else []
    return {
        **config.to_json(),
        "architectures": [type(network).__name__],
        "model_type": "avit",
        "library": "arl",
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
        "anatomies": list(ANATOMIES),
        "temperature": metrics.temperature if metrics else None,
        "threshold": metrics.threshold if metrics else None,
        "onnx": {"opset": OPSET, "greatest_difference": difference, "inputs": ["image", "anatomy"]},
    }


def _preprocessor(config: ModelConfig) -> dict[str, object]:
    """Names of Hugging Face's image processors; the picture is stretched to a square."""
    return {
        # Without "shortest_edge", Hugging Face resizes to exactly this height and width.
        "do_resize": True,
        "size": {"height": config.size, "width": config.size},
        "do_convert_rgb": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN],
        "image_std": [STD],
    }


def _card(config: ModelConfig, chosen: Chosen) -> str:
    tag = "image-feature-extraction"
    if isinstance(config, TaskModelConfig):
        tag = f"image-{config.task.kind}"
    head = (
        f"---\nlibrary_name: arl\npipeline_tag: {tag}\n"
        "tags: [ultrasound, onnx, safetensors]\n---\n\n"
    )
    return head + (
        chosen.card
        or f"# {chosen.name}\n\n{LIMITS}\n\nNothing of this model was released or judged.\n"
    )
