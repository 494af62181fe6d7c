"""The losses of the downstream tasks, for `engine.fit`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arl.models.avit import check_anatomy
from arl.models.heads import Classifier
from arl.models.upernet import Segmenter


@dataclass
class TaskInputs:
    """Augmented images of B examples with their targets."""

    image: Tensor  # (B, C, S, S)
    anatomy: Tensor  # (B,) long
    target: Tensor  # (B,) long class, or (B, 1, S, S) float mask in {0, 1}

    def to(self, device: torch.device) -> "TaskInputs":
        """Copy the examples to a device.

        Raises:
            ValueError: an anatomy is unknown.
        """
        if self.anatomy.device.type == "cpu":
            check_anatomy(self.anatomy)
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        return replace(self, **moved)


def dice_loss(logits: Tensor, target: Tensor, eps: float = 1.0) -> Tensor:
    """Return the mean of 1 - soft Dice over the images; logits and target are (B, 1, H, W)."""
    probability = logits.sigmoid().flatten(1)
    target = target.flatten(1)
    overlap = (probability * target).sum(1)
    return (1 - (2 * overlap + eps) / (probability.sum(1) + target.sum(1) + eps)).mean()


class FineTuner(nn.Module):
    """A task model with its loss: cross-entropy, plus Dice for a mask (appendix B)."""

    def __init__(self, model: Classifier | Segmenter, *, label_smoothing: float) -> None:
        super().__init__()
        # `optim.layer_of` expects the name `encoder`.
        self.encoder = model.encoder
        self.model = model
        self.label_smoothing = label_smoothing

    def forward(self, inputs: TaskInputs, progress: float) -> dict[str, Tensor]:
        """Compute `loss` and its terms."""
        logits = self.model(inputs.image, inputs.anatomy).float()
        if inputs.target.ndim == 1:
            return {
                "loss": F.cross_entropy(logits, inputs.target, label_smoothing=self.label_smoothing)
            }
        cross_entropy = F.binary_cross_entropy_with_logits(logits, inputs.target)
        dice = dice_loss(logits, inputs.target)
        return {"loss": cross_entropy + dice, "cross_entropy": cross_entropy, "dice_loss": dice}

    def after_step(self, progress: float) -> None:
        """Do nothing after a step."""
