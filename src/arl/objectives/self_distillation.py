"""Self-distillation, eq. 5, in DINO's form."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arl.objectives.centering import Centering


def teacher_entropy(targets: Tensor) -> Tensor:
    """Return the mean entropy of target probabilities (..., K), in nats.

    It is ln K for uniform targets and 0 for one-hot targets.

    The loss minus the entropy is KL(teacher || student).
    """
    # xlogy takes twice as long, and 0 * log(tiny) is 0 as well.
    return -(targets * targets.clamp_min(torch.finfo(targets.dtype).tiny).log()).sum(dim=-1).mean()


class SelfDistillation(nn.Module):
    """L_SD, eq. 5: cross-entropy between teacher and student over prototypes and pairs of views.

    Eq. 5 sums over "output tokens", but z are distributions over prototypes. As in DINO, the sum
    runs over the K prototypes. The mean runs over the images and over the pairs of a teacher's
    global view and another view of the student. The first student views are the teacher's views.

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
        """Compute target probabilities (G, B, K) of the teacher logits, G x (B, K).

        In training mode the centre moves.
        """
        views = torch.stack(tuple(teacher_logits))
        rows = views.flatten(0, 1)
        targets: Tensor = self.centering(rows, teacher_temp)
        if self.training:
            self.centering.update(rows)
        return targets.view(views.shape)

    def cross_entropy(self, student_logits: Sequence[Tensor] | Tensor, targets: Tensor) -> Tensor:
        """Compute L_SD of the student's logits, V x (B, K), and targets (G, B, K).

        The first G student views are the global views.

        Raises:
            ValueError: there are no two different views.
        """
        views, images = targets.shape[:2]
        pairs = views * len(student_logits) - min(views, len(student_logits))
        if not pairs:
            raise ValueError(
                f"L_SD needs two different views: {views} teacher, {len(student_logits)} student"
            )
        precision = torch.promote_types(targets.dtype, torch.float32)
        total, loss = targets.sum(dim=0), targets.new_zeros(())
        for view, logits in enumerate(student_logits):
            # Cross-entropy is linear in the target, so one product serves all pairs of a view.
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
        """Compute L_SD, a scalar, in one call; `targets` and `cross_entropy` are its two halves.

        Args:
            student_logits: one (B, K) per view, the global views first, in the teacher's order.
            teacher_logits: one (B, K) per global view.
            teacher_temp: current teacher temperature.
        """
        return self.cross_entropy(student_logits, self.targets(teacher_logits, teacher_temp))
