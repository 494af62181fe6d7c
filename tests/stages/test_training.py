"""When a training resumes, and what a user reads when it does not."""

from pathlib import Path

import pandas as pd
import pytest

from arl.stages._training import RunKey, rows_digest

ROWS = pd.DataFrame(
    {"pixel_sha256": ["a", "b"], "anatomy": ["breast", "lung"], "label": ["benign", None]}
)


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def key(**changed: object) -> RunKey:
    settings = {"threads": 2, "max_steps": 10, "checkpoint_every": 5, **changed}
    return RunKey.make("pretrain", seed=0, pretrain=settings, data={"rows": rows_digest(ROWS)})


def test_the_same_settings_share_a_folder() -> None:
    assert key().open() == key().open()


@pytest.mark.parametrize("column", ["pixel_sha256", "anatomy", "label"])
def test_other_pixels_anatomies_or_labels_are_another_run(column: str) -> None:
    other = ROWS.assign(**{column: ["x", "y"]})
    assert rows_digest(other, "label") != rows_digest(ROWS, "label")


def test_how_often_states_are_written_does_not_matter() -> None:
    assert key(checkpoint_every=1).folder == key().folder


def test_other_code_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key().folder
    monkeypatch.setattr("arl.training.distributed.code_version", lambda: "other")
    assert key().folder != before


def test_a_start_from_nothing_says_what_changed_and_what_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = key().open()
    assert capsys.readouterr().err == ""
    (folder / "step-00000005").mkdir()
    key(threads=1, max_steps=20).open()
    message = capsys.readouterr().err
    assert "pretrain starts from step 0" in message
    assert "pretrain.threads was 2 and is 1" in message
    assert "pretrain.max_steps was 10 and is 20" in message
    assert f"stay in {folder}" in message
    assert "checkpoint_every" not in message
