"""The losses of the downstream tasks, for `engine.fit`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from arl.models.avit import check_anatomy
from arl.models.heads import TaskModel
from arl.tasks.kind import Kind


@dataclass
class TaskInputs:
    """Augmented images of B examples with their targets."""

    image: Tensor  # (B, C, S, S)
    anatomy: Tensor  # (B,) long
    target: Tensor  # (B,) long class, (B, K) float, or (B, K, S, S) float masks in {0, 1}

    def to(self, device: torch.device) -> "TaskInputs":
        """Copy the examples to a device.

        Raises:
            ValueError: an anatomy is unknown.
        """
        if self.anatomy.device.type == "cpu":
            check_anatomy(self.anatomy)
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        return replace(self, **moved)


class FineTuner(nn.Module):
    """A task model with the loss of its kind."""

    def __init__(
        self,
        model: TaskModel,
        kind: Kind,
        *,
        label_smoothing: float,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        # `optim.layer_of` expects the name `encoder`.
        self.encoder = model.encoder
        self.model = model
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, inputs: TaskInputs, progress: float) -> dict[str, Tensor]:
        """Compute `loss` and its terms."""
        outputs = self.model(inputs.image, inputs.anatomy).float()
        return self.kind.loss(
            outputs,
            inputs.target,
            label_smoothing=self.label_smoothing,
            weights=self.class_weights,
        )

    def after_step(self, progress: float) -> None:
        """Do nothing after a step."""
