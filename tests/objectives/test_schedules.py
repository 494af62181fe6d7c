import math

import pytest

from arl.objectives.schedules import cosine_schedule, teacher_momentum, warmup_schedule


def test_cosine() -> None:
    assert cosine_schedule(0, 3, 7) == 3
    assert cosine_schedule(0.5, 3, 7) == 5
    assert cosine_schedule(1, 3, 7) == 7
    assert math.isclose(cosine_schedule(1 / 3, 0, 1), 0.25)


def test_warmup_is_linear_and_then_flat() -> None:
    assert warmup_schedule(0, 0.04, 0.07, 0.3) == 0.04
    assert math.isclose(warmup_schedule(0.1, 0.04, 0.07, 0.3), 0.05)
    assert warmup_schedule(0.3, 0.04, 0.07, 0.3) == 0.07
    assert warmup_schedule(1, 0.04, 0.07, 0.3) == 0.07
    assert warmup_schedule(0, 0.04, 0.07, 0) == 0.07


def test_momentum_rises_to_one() -> None:
    values = [teacher_momentum(step / 13, 0.996) for step in range(14)]
    assert math.isclose(values[0], 0.996)
    assert values[-1] == 1
    assert values == sorted(values)


@pytest.mark.parametrize("progress", [-0.1, 1.01, math.nan])
def test_progress_is_between_zero_and_one(progress) -> None:
    for schedule in (lambda p: cosine_schedule(p, 0, 1), lambda p: warmup_schedule(p, 0, 1, 0.5)):
        with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
            schedule(progress)
