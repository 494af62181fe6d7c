"""The kind of a task from its settings."""

from typing import Protocol

from arl.tasks.classification import Classification
from arl.tasks.kind import Kind
from arl.tasks.segmentation import Segmentation


class Definition(Protocol):
    """The settings of a task, or the head of a stored model: what decides the kind."""

    @property
    def kind(self) -> str: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def label(self) -> str: ...
    @property
    def mask(self) -> str: ...


def make_kind(task: Definition) -> Kind:
    """The kind object of a task.

    Raises:
        ValueError: an unknown kind, or settings that do not fit it.
    """
    match task.kind:
        case Classification.word:
            return Classification(tuple(task.classes), task.label)
        case Segmentation.word:
            return Segmentation(task.mask)
    raise ValueError(f"task kind {task.kind!r} is not known")
