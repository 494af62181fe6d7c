import pytest

from arl.evaluation.spending import spent


@pytest.mark.parametrize("tries", [1, 2, 5, 20, 100])
def test_all_tries_together_spend_alpha(tries: int) -> None:
    levels = [spent(0.05, trial, tries) for trial in range(1, tries + 1)]
    assert sum(levels) == pytest.approx(0.05)
    assert levels == sorted(levels, reverse=True)
    assert spent(0.05, tries + 1, tries) == 0


def test_the_first_try_spends_half() -> None:
    assert spent(0.05, 1, 20) == 0.025
    assert spent(0.05, 20, 20) == pytest.approx(0.025 * (19**0.5 - 18**0.5) / 19**0.5)


def test_tries_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="not counted from 1"):
        spent(0.05, 0, 20)
