"""The count of gate decisions: once a try, never the same number twice."""

import threading
from pathlib import Path

import pytest

from arl.storage.trials import TrialLog


def test_the_same_try_keeps_its_number(tmp_path: Path) -> None:
    log = TrialLog(str(tmp_path), "breast", "a" * 16)
    assert log.count("model 1", None) == 1
    assert log.count("model 2", "champion") == 2
    assert log.count("model 1", None) == 1
    assert log.count("model 1", "champion") == 3
    assert [trial.number for trial in log.read()] == [1, 2, 3]
    assert TrialLog(str(tmp_path), "breast", "b" * 16).count("model 1", None) == 1
    assert TrialLog(str(tmp_path), "lung", "a" * 16).count("model 1", None) == 1


def test_tries_at_the_same_time_have_different_numbers(tmp_path: Path) -> None:
    numbers: list[int] = []

    def count(name: int) -> None:
        numbers.append(TrialLog(str(tmp_path), "breast", "a").count(f"model {name}", None))

    threads = [threading.Thread(target=count, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 17))


def test_a_damaged_record_is_an_error_and_no_missing_try(tmp_path: Path) -> None:
    log = TrialLog(str(tmp_path), "breast", "a")
    log.count("model", None)
    file = next(tmp_path.rglob("000001.json"))
    file.write_text("{")
    with pytest.raises(ValueError, match=r"000001\.json is not valid JSON"):
        log.count("other", None)
