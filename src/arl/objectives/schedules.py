"""Schedules of the objectives, as functions of progress: 0 at the first step, 1 at the end."""

import math


def _checked(progress: float) -> float:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress {progress} is outside [0, 1]")
    return progress


def cosine_schedule(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * _checked(progress)))


def warmup_schedule(progress: float, start: float, end: float, warmup: float) -> float:
    """Linear from `start` to `end` over the first `warmup` share, then `end`: DINO's teacher temperature."""
    if _checked(progress) >= warmup:
        return end
    return start + (end - start) * progress / warmup


def teacher_momentum(progress: float, base: float) -> float:
    """Momentum of the teacher's moving average: from `base` to 1 by a cosine."""
    return cosine_schedule(progress, base, 1.0)
