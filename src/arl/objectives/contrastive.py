"""Symmetric InfoNCE of MoCo v3 (Chen, Xie and He, ICCV 2021).

The negatives are the batch of all ranks.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from arl.objectives.ranks import rows_of_all_ranks


def _info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key among all keys, times 2 * temperature as published."""
    candidates, first = rows_of_all_ranks(F.normalize(keys, dim=1))
    logits = F.normalize(queries, dim=1) @ candidates.T / temperature
    # A query's own key lies behind the keys of the lower ranks.
    own = torch.arange(len(queries), device=queries.device) + first
    return F.cross_entropy(logits, own) * (2 * temperature)


def contrastive_loss(
    queries: tuple[Tensor, Tensor], keys: tuple[Tensor, Tensor], temperature: float = 0.2
) -> Tensor:
    """Compute MoCo v3's loss, a scalar: each view's queries against the other view's keys.

    Args:
        queries: predictor's output of view 1 and of view 2, each (B, D), with gradient.
        keys: momentum encoder's output of view 1 and of view 2, each (B, D), without gradient.
        temperature: 0.2 for ViT-B/16.
    """
    precision = torch.promote_types(queries[0].dtype, torch.float32)
    query_1, query_2 = (view.to(precision) for view in queries)
    key_1, key_2 = (view.to(precision) for view in keys)
    return _info_nce(query_1, key_2, temperature) + _info_nce(query_2, key_1, temperature)
