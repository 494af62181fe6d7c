"""Teacher targets that do not collapse: centring (DINO) or Sinkhorn-Knopp (SwAV, DINOv2)."""

import torch
from torch import Tensor, nn

from arl.objectives.ranks import max_over_ranks, sum_over_ranks

CENTERINGS = ("center", "sinkhorn")


def _logsumexp_of_all_rows(log_weights: Tensor) -> Tensor:
    """Return the log of the column sums (K,) of exp of the rows (M, K) of all ranks."""
    largest = max_over_ranks(log_weights.amax(dim=0))
    return largest + sum_over_ranks((log_weights - largest).exp().sum(dim=0)).log()


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temp: float, iterations: int = 3) -> Tensor:
    """Assign rows to prototypes so that each prototype gets the same total weight.

    The iterations alternate between equal column sums and unit row sums, and end with the rows.

    Args:
        logits: teacher, (M, K) on this rank.
        temp: teacher temperature.
        iterations: 3 in SwAV and DINOv2.

    Returns:
        Probabilities (M, K) in at least float32; rows sum to 1.
    """
    # In the log domain, because exp(logits / temp) overflows float32 for logits of 4 at temp 0.04.
    log_weights = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temp
    for _ in range(iterations):
        log_weights = log_weights - _logsumexp_of_all_rows(log_weights)
        log_weights = log_weights.log_softmax(dim=1)
    return log_weights.exp()


class Centering(nn.Module):
    """Teacher logits (M, K) to target probabilities (M, K).

    Args:
        prototypes: K.
        momentum: momentum of the centre, a moving average of the mean logits of all ranks.
        centering: center: softmax((logits - center) / temp). sinkhorn: Sinkhorn-Knopp over the
            batch of all ranks, without a state.

    Raises:
        ValueError: `centering` is unknown.
    """

    center: Tensor  # (1, K)

    def __init__(self, prototypes: int, momentum: float, centering: str) -> None:
        super().__init__()
        if centering not in CENTERINGS:
            raise ValueError(
                f"unknown centering {centering!r}: expected one of {', '.join(CENTERINGS)}"
            )
        self.momentum = momentum
        self.centering = centering
        self.register_buffer("center", torch.zeros(1, prototypes))

    @torch.no_grad()
    def forward(self, teacher_logits: Tensor, teacher_temp: float) -> Tensor:
        """Compute targets with the current centre; `update` moves it."""
        if self.centering == "sinkhorn":
            return sinkhorn_knopp(teacher_logits, teacher_temp)
        return ((teacher_logits - self.center) / teacher_temp).softmax(dim=1)

    @torch.no_grad()
    def update(self, teacher_logits: Tensor) -> None:
        """Move the centre towards the mean row of all ranks, whose numbers of rows may differ."""
        if self.centering == "sinkhorn":
            return
        total = sum_over_ranks(teacher_logits.to(self.center.dtype).sum(dim=0, keepdim=True))
        # `new_tensor` would copy from pageable memory and wait, `new_full` is a kernel.
        rows = sum_over_ranks(self.center.new_full((), len(teacher_logits)))
        self.center.mul_(self.momentum).add_(total / rows, alpha=1 - self.momentum)
