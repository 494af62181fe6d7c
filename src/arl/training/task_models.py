"""The stored models of tasks. Apart from `checkpoint`, since pretraining knows no task."""

from pathlib import Path

from arl.model_config import TaskModelConfig, read_config
from arl.models.encoder import build_encoder
from arl.models.heads import TaskModel
from arl.tasks.make import make_kind
from arl.training.checkpoint import load_strictly, load_weights


def load_task_model(folder: Path) -> tuple[TaskModel, TaskModelConfig]:
    """Load the fine-tuned model of a task, and its config.

    Raises:
        ValueError: the folder holds another kind of model, or weights of another architecture.
    """
    config = read_config(folder)
    if not isinstance(config, TaskModelConfig):
        raise ValueError(f"{folder} holds an encoder, expected the model of a task")
    encoder = build_encoder(config.encoder)
    model = make_kind(config.task).build(encoder, config.upernet_channels)
    load_strictly(model, load_weights(folder), folder)
    return model, config
