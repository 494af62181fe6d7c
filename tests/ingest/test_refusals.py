"""Batches in which too much is refused."""

import pytest

from arl.corpus.record import Input, refusal
from arl.ingest.refusals import TooManyRefusedError, check_refusals, reason_table


def batch(*labels: str | None) -> list[Input]:
    return [Input(str(i), list, label) for i, label in enumerate(labels)]


def test_reasons_of_one_kind_are_counted_together() -> None:
    reasons = ["benign (1).png is empty", None, "benign (22).png is empty", "it holds no image"]
    assert reason_table(reasons) == ["      2  benign * is empty", "      1  it holds no image"]
    assert reason_table([None]) == []
    many = [f"{'x' * n} is bad" for n in range(1, 15)]
    assert reason_table(many)[-1].split(None, 1) == ["2", "other reasons"]


def test_a_fraction_up_to_the_limit_is_accepted() -> None:
    check_refusals(batch(None, None), ["bad", None], 0.5)
    with pytest.raises(TooManyRefusedError, match="1 of 2 inputs are refused"):
        check_refusals(batch(None, None), ["bad", None], 0.49)


def test_a_lost_class_fails_and_a_class_with_one_image_left_does_not() -> None:
    inputs = batch("benign", "benign", "benign", "normal")
    with pytest.raises(TooManyRefusedError, match="all inputs of class normal are refused"):
        check_refusals(inputs, [None, None, None, "bad"], 0.5)
    check_refusals(inputs, ["bad", "bad", None, None], 0.5)


def test_an_empty_batch_fails_unless_every_refusal_is_allowed() -> None:
    with pytest.raises(TooManyRefusedError, match="0 of 0"):
        check_refusals([], [], 0.5)
    check_refusals([], [], 1)
    check_refusals([refusal("x", "bad")], ["bad"], 1)
