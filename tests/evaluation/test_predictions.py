from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from arl.evaluation.predictions import (
    classification_table,
    read_predictions,
    segmentation_table,
    slice_columns,
    write_predictions,
)
from arl.files import sha256
from arl.loading.loader import Batch

ROWS = pd.DataFrame(
    {
        "id": ["s:a", "s:b", "s:c"],
        "patient": ["s:p", None, None],
        "clip": [None, "s:v", None],
        "site": ["north", "north", "south"],
        "probe": ["linear", "convex", "unknown"],
        "device": ["A", None, "B"],
        "synthetic": [False, True, True],
    }
)


def batch(index: list[int], label: list[int], mask: torch.Tensor | None = None) -> Batch:
    size = len(index)
    return Batch(
        image=torch.zeros(size, 1, 5, 5, dtype=torch.uint8),
        extent=torch.tensor([[5, 3]] * size),
        anatomy=torch.zeros(size, dtype=torch.long),
        target=torch.tensor(label),
        mask=mask,
        index=torch.tensor(index),
    )


def test_scores_find_their_rows() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0]])
    table = classification_table(
        ROWS, [(batch([2, 0], [1, 0]), logits[0]), (batch([1], [1]), logits[1])], 2
    )
    assert table["label"].tolist() == [0, 1, 1]
    assert table["score_1"].tolist() == pytest.approx(
        [0.5, 1 / (1 + np.e**3), 1 / (1 + np.e**-2)], abs=1e-6
    )
    assert (table["score_0"] + table["score_1"]).tolist() == pytest.approx([1, 1, 1])
    assert table["patient"].tolist() == [
        "s:p",
        "s:v",
        "s:c",
    ]  # the clip, else the image, stands in for the patient
    assert table["device"].tolist() == ["A", "unknown", "B"]


def test_an_image_without_a_prediction_has_no_score() -> None:
    table = classification_table(ROWS, [(batch([0], [1]), torch.tensor([[0.0, 1.0]]))], 2)
    assert table["score_1"].isna().tolist() == [False, True, True]


def test_masks_are_compared_pixel_by_pixel() -> None:
    truth = torch.zeros(2, 1, 5, 5, dtype=torch.uint8)
    truth[0, 0, :2, :3] = 1
    logits = torch.full((2, 1, 5, 5), -1.0)
    logits[0, 0, 1:3, :3] = 1.0  # half of it right
    table = segmentation_table(ROWS[:2], [(batch([0, 1], [-1, -1], truth), logits)])
    assert table["dice"].tolist() == [0.5, 1.0]
    assert table["iou"].tolist() == pytest.approx([1 / 3, 1.0], abs=1e-6)


def test_undefined_masks_are_not_empty_masks() -> None:
    logits = torch.full((1, 1, 5, 5), float("nan"))
    table = segmentation_table(
        ROWS[:1], [(batch([0], [-1], torch.zeros(1, 1, 5, 5, dtype=torch.uint8)), logits)]
    )
    assert table["dice"].isna().all()


def test_tables_come_back_and_are_the_same_bytes(tmp_path: Path) -> None:
    table = classification_table(ROWS, [(batch([0, 1, 2], [0, 1, 1]), torch.eye(3)[:, :2])], 2)
    for name in ("a", "b"):
        write_predictions(table, tmp_path / name)
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "a"), table, check_dtype=False)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")


def test_tables_that_are_none(tmp_path: Path) -> None:
    ROWS.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet has format none, expected arl\.pred"):
        read_predictions(tmp_path / "rows.parquet")
    write_predictions(ROWS, tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet has no column dice, iou"):
        read_predictions(tmp_path / "rows.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"text\.parquet is not a readable parquet file"):
        read_predictions(tmp_path / "text.parquet")
    with pytest.raises(FileNotFoundError):
        read_predictions(tmp_path / "nothing.parquet")


def test_groups_of_the_manifest_become_columns() -> None:
    def entry(**values: object) -> list[dict[str, object]]:
        return [
            {
                "name": name,
                "level": "patient",
                "text": value if isinstance(value, str) else None,
                "number": value if isinstance(value, float) else None,
            }
            for name, value in values.items()
        ]

    labels = [entry(sex="f", age=17.0), entry(sex="m", age=40.0), None]
    table = classification_table(ROWS.assign(labels=labels), [], 2)
    assert table["sex"].tolist() == ["f", "m", "unknown"]
    assert table["age_group"].tolist() == ["0-18", "40-60", "unknown"]
    assert "pathology" not in table
    assert slice_columns(table) == ["site", "probe", "device", "age_group", "sex"]
    assert slice_columns(classification_table(ROWS, [], 2)) == ["site", "probe", "device"]
