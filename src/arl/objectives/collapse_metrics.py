"""Signs of collapse, measured on features and losses."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., ICML 2023): exponential of the entropy of the normalised singular values.

    Between 1 (collapsed) and min(M, D). Compare only within one method, on one fixed pool;
    the paper uses at least 25,000 rows.

    Args:
        features: (M, D), not centred, not normalised.
    """
    singular = torch.linalg.svdvals(features.double())
    share = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return math.exp(-float(torch.xlogy(share, share).sum()))


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation of L2-normalised features (M, D).

    About 1 / sqrt(D) when healthy, 0 when all features are the same.
    """
    return float(F.normalize(features.double(), dim=1).std(dim=0, correction=0).mean())


def uniform_distance(loss: float, prototypes: int) -> float:
    """How far a cross-entropy over K prototypes is below that of uniform predictions, ln K, in nats.

    Stuck at 0: teacher and student are uniform.
    """
    return math.log(prototypes) - loss
