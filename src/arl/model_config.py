"""The `config.json` of a model folder: what is needed to build the model again and to feed it."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from arl.files import read_json
from arl.settings import Task

# Keyword arguments of `AViT` or, with a `method` among them, of `Baseline`.
EncoderArguments = dict[str, Any]


@dataclass(frozen=True)
class EncoderConfig:
    """A pretrained encoder.

    Attributes:
        size: side of the square input image, pixels.
        encoder: keyword arguments of the encoder's class.
    """

    KIND: ClassVar[str] = "encoder"
    VERSION: ClassVar[int] = 1

    size: int
    encoder: EncoderArguments

    def to_json(self) -> dict[str, object]:
        """The content of `config.json`."""
        return {"version": self.VERSION, "kind": self.KIND, **asdict(self)}

    def check_size(self, size: int, folder: Path) -> None:
        """Compare the image size of the encoder with `data.size`.

        Raises:
            ValueError: the encoder of `folder` reads images of another size.
        """
        if size != self.size:
            raise ValueError(
                f"data.size is {size}, but the encoder of {folder} reads {self.size} pixels: set "
                f"data.size={self.size}"
            )


@dataclass(frozen=True)
class TaskHead:
    """What a task model predicts.

    Attributes:
        kind: `word` of one of the kinds of `arl.tasks`.
        classes: class names in the order of the logits; empty for a segmentation.
        anatomy: the anatomy of the images of the task.
        mask: the structure that a segmentation finds, e.g. "lv".
        label: name of the label that the task predicts; "" is the class of the main task.
    """

    kind: str
    classes: list[str]
    anatomy: str
    mask: str
    label: str = ""

    @classmethod
    def of(cls, task: Task) -> "TaskHead":
        """The part of a task's settings that a model depends on: neither margin nor floor."""
        return cls(**{field.name: getattr(task, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class TaskModelConfig(EncoderConfig):
    """A fine-tuned encoder with the head of one task."""

    KIND: ClassVar[str] = "task"

    name: str
    task: TaskHead
    upernet_channels: int


ModelConfig = EncoderConfig | TaskModelConfig


def read_config(folder: Path) -> ModelConfig:
    """Read the `config.json` of a model folder.

    Fields beyond ours are ignored: `arl export` adds those of Hugging Face.

    Raises:
        FileNotFoundError: the folder has no `config.json`.
        ValueError: another version or kind of file, or a field is missing.
    """
    file = folder / "config.json"
    content = read_json(file)
    # Old weights would load into other layers without an error, so the version decides first.
    if content.get("version") != EncoderConfig.VERSION:
        raise ValueError(
            f"{file} has version {content.get('version')}, this release reads "
            f"{EncoderConfig.VERSION}: train or import the model again"
        )
    kind = content.get("kind")
    try:
        if kind == EncoderConfig.KIND:
            return EncoderConfig(content["size"], content["encoder"])
        if kind == TaskModelConfig.KIND:
            return TaskModelConfig(
                size=content["size"],
                encoder=content["encoder"],
                name=content["name"],
                task=TaskHead(**content["task"]),
                upernet_channels=content["upernet_channels"],
            )
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file} is not the config of a {kind} model: {error}") from error
    raise ValueError(f"{file} describes a {kind!r} model, expected encoder or task")
