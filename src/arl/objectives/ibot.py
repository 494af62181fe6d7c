"""Masked patch-token distillation of iBOT (Zhou et al., ICLR 2022).

As in DINOv2, the heads run on gathered masked tokens.
"""

import torch
from torch import Tensor, nn

from arl.objectives.centering import Centering


class PatchDistillation(nn.Module):
    """L_MIM of iBOT: student against teacher at the masked patches of the same view.

    The caller passes the masked tokens only, and the centre is the mean of those. Every image has
    the same weight, whatever its number of masked patches. An image without masked patches counts
    zero.

    Args:
        prototypes: K.
        student_temp: student temperature, 0.1.
        center_momentum: of the moving average of the centre, 0.9.
        centering: "center" or "sinkhorn".
    """

    def __init__(
        self,
        prototypes: int,
        student_temp: float,
        center_momentum: float,
        centering: str = "center",
    ) -> None:
        super().__init__()
        self.student_temp = student_temp
        self.centering = Centering(prototypes, center_momentum, centering)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, teacher_temp: float
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            student_logits: (M, K), head of `tokens[mask]`.
            teacher_logits: (M, K), head of the teacher's `tokens[mask]`.
            mask: bool (B, N), True = masked, M of them.
            teacher_temp: current teacher temperature.

        Raises:
            ValueError: the logits are not one row per masked patch, or no patch is masked.
        """
        counts = mask.sum(dim=1)
        masked = int(counts.sum())
        if masked == 0 or not len(student_logits) == len(teacher_logits) == masked:
            raise ValueError(
                f"{masked} masked patches, but {len(student_logits)} student and "
                f"{len(teacher_logits)} teacher rows: the loss needs one row per masked patch, "
                "and at least one"
            )
        targets: Tensor = self.centering(teacher_logits, teacher_temp)
        if self.training:
            self.centering.update(teacher_logits)
        precision = torch.promote_types(targets.dtype, torch.float32)
        student = (student_logits.to(precision) / self.student_temp).log_softmax(dim=-1)
        weight = counts.clamp(min=1).to(precision).reciprocal().repeat_interleave(counts)
        return -((targets * student).sum(dim=-1) * weight).sum() / len(mask)
