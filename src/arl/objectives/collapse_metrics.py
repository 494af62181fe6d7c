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
def feature_std(features: Tensor) -> Tensor:
    """Return the mean standard deviation, over dimensions, of L2-normalised features (M, D).

    It is about 1 / sqrt(D) for healthy features and 0 if all features are the same.
    """
    # The result stays a tensor, since `float` would make the host wait for a GPU in each step.
    return F.normalize(features.double(), dim=1).std(dim=0, correction=0).mean().float()


@torch.no_grad()
def uniform_distance(loss: Tensor, prototypes: int) -> Tensor:
    """Return ln K minus a cross-entropy over K prototypes, in nats.

    A value that stays at 0 means that teacher and student are uniform.
    """
    # The difference of two close numbers, hence float64.
    return (math.log(prototypes) - loss.double()).to(loss.dtype)


def clamped_fraction(history: Sequence[dict[str, float]]) -> float:
    """Return the fraction of the steps with L_adv in which lambda of eq. 6 is at its limit."""
    clamped = [record["lambda_clamped"] for record in history if record.get("adv", 0.0) > 0]
    return sum(clamped) / max(1, len(clamped))


_RECENT = 0.1  # the last steps that a warning looks at: fraction of the history
_MIN_STEPS = 20  # before which a pretraining has no trend
_MIN_RANK = 0.02  # of the width of the features
_MIN_STD = 0.1  # of 1 / sqrt(width), the value of healthy features
_MIN_DISTANCE = 0.005  # nats below uniform predictions
_WON, _LOST = 0.95, 0.52  # accuracy of the discriminator
_MAX_CLAMPED = 0.05  # fraction of the steps with L_adv


def collapse_warnings(history: Sequence[dict[str, float]], width: int) -> list[str]:
    """Describe signs of collapse and of a won or lost GAN in a history; empty if there are none.

    Args:
        history: named terms of each step, from `Pretrainer`, with `rankme` where it was measured.
        width: D of the features.
    """
    # Every pretraining starts near collapse: with equal features and uniform predictions.
    if len(history) < _MIN_STEPS:
        return []
    recent = history[-max(1, round(_RECENT * len(history))) :]

    def mean(name: str) -> float | None:
        values = [record[name] for record in recent if name in record]
        return sum(values) / len(values) if values else None

    warnings = []
    ranks = [record["rankme"] for record in history if "rankme" in record]
    if ranks and ranks[-1] < max(2.0, _MIN_RANK * width):
        warnings.append(
            f"RankMe is {ranks[-1]:.1f} of {width}: the features use few directions (collapse)"
        )
    std = mean("feature_std")
    if std is not None and std < _MIN_STD / math.sqrt(width):
        warnings.append(
            f"the standard deviation of the features is {std:.2g}, healthy features have "
            f"{1 / math.sqrt(width):.2g}: all images get the same feature (collapse)"
        )
    distance = mean("uniform_distance")
    if distance is not None and distance < _MIN_DISTANCE:
        warnings.append(
            f"L_SD is {distance:.2g} nats below uniform predictions: the student learns nothing "
            "from the teacher; lower teacher_temp or use centering=sinkhorn"
        )
    accuracy = mean("d_accuracy") if (mean("adv") or 0.0) > 0 else None
    if accuracy is not None and accuracy > _WON:
        warnings.append(
            f"the discriminator is right in {accuracy:.0%} of the patches: it has won, and L_adv "
            "no longer teaches the decoder"
        )
    if accuracy is not None and accuracy < _LOST:
        warnings.append(
            f"the discriminator is right in {accuracy:.0%} of the patches, which is chance: it "
            "has lost, and L_adv is noise"
        )
    if clamped_fraction(history) > _MAX_CLAMPED:
        warnings.append(
            f"lambda of eq. 6 is at its limit in {clamped_fraction(history):.0%} of the steps and "
            "balances nothing: raise max_adversarial_weight or set it to 0"
        )
    return warnings
