"""Self-distillation, eq. 5, in DINO's form."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arl.objectives.centering import Centering


def teacher_entropy(targets: Tensor) -> Tensor:
    """Mean entropy of the target probabilities (..., K), nats: ln K when uniform, 0 when one-hot.

    The loss minus this is KL(teacher || student).
    """
    # not xlogy, which takes twice as long; 0 * log(tiny) is 0 as well
    return -(targets * targets.clamp_min(torch.finfo(targets.dtype).tiny).log()).sum(dim=-1).mean()


class SelfDistillation(nn.Module):
    """L_SD, eq. 5: cross-entropy between teacher and student over prototypes and pairs of views.

    Eq. 5 sums over "output tokens", but z are distributions over prototypes; as in DINO the sum
    goes over the K prototypes, and the mean over the images and the pairs (teacher global view,
    student view) of different views. The first student views are the teacher's global views.

    Args:
        prototypes: K.
        student_temp: student temperature, 0.1 in DINO.
        center_momentum: of the moving average of the centre, 0.9 in DINO.
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

    @torch.no_grad()
    def targets(self, teacher_logits: Sequence[Tensor] | Tensor, teacher_temp: float) -> Tensor:
        """Target probabilities (G, B, K) of the teacher's logits, G x (B, K); moves the centre when training."""
        views = torch.stack(tuple(teacher_logits))
        rows = views.flatten(0, 1)
        targets: Tensor = self.centering(rows, teacher_temp)
        if self.training:
            self.centering.update(rows)
        return targets.view(views.shape)

    def cross_entropy(self, student_logits: Sequence[Tensor] | Tensor, targets: Tensor) -> Tensor:
        """L_SD of the student's logits, V x (B, K) with the G global views first, and targets (G, B, K)."""
        views, images = targets.shape[:2]
        pairs = views * len(student_logits) - min(views, len(student_logits))
        if not pairs:
            raise ValueError(
                f"L_SD needs two different views: got {views} teacher, {len(student_logits)} student"
            )
        precision = torch.promote_types(targets.dtype, torch.float32)
        total, loss = targets.sum(dim=0), targets.new_zeros(())
        for view, logits in enumerate(student_logits):
            # cross-entropy is linear in the target: a view meets the sum of those that it is paired
            # with
            target = total - targets[view] if view < views else total
            loss = (
                loss
                - (target * (logits.to(precision) / self.student_temp).log_softmax(dim=-1)).sum()
            )
        return loss / (pairs * images)

    def forward(
        self,
        student_logits: Sequence[Tensor] | Tensor,
        teacher_logits: Sequence[Tensor] | Tensor,
        teacher_temp: float,
    ) -> Tensor:
        """L_SD, a scalar. `targets` and `cross_entropy` are its two halves, for those who log the entropy.

        Args:
            student_logits: one (B, K) per view, the global views first, in the teacher's order.
            teacher_logits: one (B, K) per global view.
            teacher_temp: current teacher temperature.
        """
        return self.cross_entropy(student_logits, self.targets(teacher_logits, teacher_temp))
