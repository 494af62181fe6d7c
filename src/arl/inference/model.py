"""Which model a command uses: a folder that training wrote, or the registry's champion."""

from dataclasses import dataclass
from pathlib import Path

from arl.evaluation.results import Metrics, ReleaseMetrics, read_metrics
from arl.files import tree_hash
from arl.storage.registry import Registry, tasks_of
from arl.storage.signing import keys_from_environment


@dataclass(frozen=True)
class Chosen:
    """A model's folder, its name for people, and its evaluation and card."""

    folder: Path
    name: str
    evaluation: Metrics | None  # None: the model was not evaluated
    card: str | None  # None: the model was not released

    @classmethod
    def champion(cls, registry: str, task: str, signed: bool) -> "Chosen":
        """The champion's model for `task`; without a task, its only one.

        Raises:
            ValueError: no champion, no such task, or files that were changed.
        """
        store = Registry(registry, keys_from_environment(signed))
        version = store.champion()
        if version is None:
            raise ValueError(
                f"registry {registry} has no champion yet: "
                "release a model, or name one with --model"
            )
        folder = store.fetch(version)
        tasks = tasks_of(folder)
        if not task and len(tasks) == 1:
            task = next(iter(tasks))
        if task not in tasks:
            raise ValueError(
                f"release {version} has models for {', '.join(tasks)}:"
                f" choose one with --task, not {task!r}"
            )
        card = (folder / "model_card.md").read_text(encoding="utf-8")
        metrics = ReleaseMetrics.read(folder / ReleaseMetrics.FILE).tasks[task]
        return cls(tasks[task], f"release {version}, {task}", metrics, card)


def chosen_model(
    model: Path | None, evaluation: Path | None, registry: str, task: str, signed: bool
) -> Chosen:
    """The model in `model` with its evaluation, or without one the champion's model for `task`.

    Raises:
        ValueError: no champion, no such task, files that were changed, or an evaluation of another
            model.
    """
    if model is None:
        return Chosen.champion(registry, task, signed)
    # Thresholds and calibration hold for the weights they were computed with.
    metrics = None if evaluation is None else read_metrics(evaluation)
    if metrics is not None and metrics.model_hash != tree_hash(model):
        raise ValueError(
            f"{evaluation} is the evaluation of another model than {model}: evaluate again"
        )
    return Chosen(model, str(model), metrics, None)
