import pytest

from arl.evaluation.spending import SPENT_FRACTION, spent


@pytest.mark.parametrize("tries", [1, 2, 5, 20, 100])
def test_all_tries_together_spend_their_fraction_of_alpha(tries: int) -> None:
    levels = [spent(0.05, trial, tries) for trial in range(1, tries + 1)]
    assert sum(levels) == pytest.approx(0.05 * SPENT_FRACTION)
    assert levels == sorted(levels, reverse=True)
    assert spent(0.05, tries + 1, tries) == 0


def test_the_first_try_spends_half() -> None:
    assert spent(0.05, 1, 20) == pytest.approx(0.015)
    assert spent(0.05, 20, 20) == pytest.approx(0.015 * (19**0.5 - 18**0.5) / 19**0.5)


def test_a_larger_fraction_gives_higher_levels() -> None:
    assert spent(0.05, 1, 20, 1.0) == 0.025


def test_tries_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="not counted from 1"):
        spent(0.05, 0, 20)
