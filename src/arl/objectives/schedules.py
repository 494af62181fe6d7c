"""Schedules as functions of progress, which is 0 at the first step and 1 at the end."""

import math


def _checked(progress: float) -> float:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress {progress} is outside [0, 1]")
    return progress


def cosine_schedule(progress: float, start: float, end: float) -> float:
    """Return half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * _checked(progress)))


def warmup_schedule(progress: float, start: float, end: float, warmup: float) -> float:
    """DINO's teacher temperature: linear from `start` to `end` until `warmup`, then constant."""
    if _checked(progress) >= warmup:
        return end
    return start + (end - start) * progress / warmup


def teacher_momentum(progress: float, base: float) -> float:
    """Return the momentum of the teacher: a cosine from `base` to 1."""
    return cosine_schedule(progress, base, 1.0)
