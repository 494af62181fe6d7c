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
            ValueError: the logits are not one row per masked patch, or no patch is masked. On a
                GPU the number of masked patches is not compared, because the host would wait.
        """
        counts, rows = mask.sum(dim=1), len(student_logits)
        masked = int(counts.sum()) if mask.device.type == "cpu" else rows
        if masked == 0 or not rows == len(teacher_logits) == masked:
            raise ValueError(
                f"{masked} masked patches, but {rows} student and "
                f"{len(teacher_logits)} teacher rows: the loss needs one row per masked patch, "
                "and at least one"
            )
        targets: Tensor = self.centering(teacher_logits, teacher_temp)
        # After the targets: the centre of a step is that of the steps before it, as in DINO.
        if self.training:
            self.centering.update(teacher_logits)
        precision = torch.promote_types(targets.dtype, torch.float32)
        student = (student_logits.to(precision) / self.student_temp).log_softmax(dim=-1)
        weight = counts.clamp(min=1).to(precision).reciprocal()
        # With `output_size`, `repeat_interleave` need not read the counts from a GPU.
        weight = weight.repeat_interleave(counts, output_size=rows)
        return -((targets * student).sum(dim=-1) * weight).sum() / len(mask)
