"""Signs of collapse in features and losses."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., ICML 2023): exp of the entropy of the normalised singular values.

    The value lies between 1 (collapsed) and min(M, D). Compare it only within one method and on
    one fixed pool. The paper uses at least 25,000 rows.

    Args:
        features: (M, D), not centred, not normalised.
    """
    singular = torch.linalg.svdvals(features.double())
    probability = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return math.exp(-float(torch.xlogy(probability, probability).sum()))


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """Return the mean standard deviation, over dimensions, of L2-normalised features (M, D).

    It is about 1 / sqrt(D) for healthy features and 0 if all features are the same.
    """
    return float(F.normalize(features.double(), dim=1).std(dim=0, correction=0).mean())


def uniform_distance(loss: float, prototypes: int) -> float:
    """Return ln K minus a cross-entropy over K prototypes, in nats.

    A value that stays at 0 means that teacher and student are uniform.
    """
    return math.log(prototypes) - loss


def clamped_fraction(history: Sequence[dict[str, float]]) -> float:
    """Return the fraction of the steps with L_adv in which lambda of eq. 6 is at its limit."""
    clamped = [record["lambda_clamped"] for record in history if record.get("adv", 0.0) > 0]
    return sum(clamped) / max(1, len(clamped))
