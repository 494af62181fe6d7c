import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.selection import select, task_rows
from arl.corpus.shard_writer import BatchWriter
from arl.tasks.classification import Classification
from arl.tasks.segmentation import Segmentation

write_batch = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))["write_batch"]
BREAST = {
    "sources": [],
    "anatomy": "breast",
    "choose": Classification(("benign", "malignant")).select,
    "description": "a class",
    "protocols": {},
}


def test_a_classification_task_has_targets_in_the_order_of_its_classes(tiny_corpus: Path) -> None:
    rows = task_rows(tiny_corpus, **BREAST)
    assert len(rows) == 30
    assert set(rows["anatomy"]) == {"breast"}
    assert (rows["target"] == (rows["label"] == "malignant")).all()
    assert set(rows["split"]) == {"train", "val", "test"}


def test_a_segmentation_task_has_the_rows_with_its_mask(tiny_corpus: Path) -> None:
    rows = task_rows(
        tiny_corpus, **BREAST | {"anatomy": "cardiac", "choose": Segmentation("lv").select}
    )
    assert len(rows) == 30
    assert (rows["mask"] == "lv").all()


def test_sources_are_chosen(tiny_corpus: Path) -> None:
    assert len(select(tiny_corpus, sources=["clinic"], protocols={})) == 60
    with pytest.raises(ValueError, match=r"no source \['hospital'\]; it has \['clinic'\]"):
        select(tiny_corpus, sources=["hospital"], protocols={})


def test_held_out_sources_are_left_out_whole(tmp_path: Path) -> None:
    for source in ("clinic", "judged"):
        write_batch(tmp_path / "data", source, patients=5)
    rows = select(tmp_path / "data", sources=[], held_out=["judged", "not-ingested"], protocols={})
    assert set(rows["source"]) == {"clinic"}
    assert rows.index.tolist() == list(range(10))
    with pytest.raises(
        ValueError, match=r"has no row beside the sources that are held out: \['clinic'\]"
    ):
        select(tmp_path / "data", sources=["clinic"], held_out=["clinic"], protocols={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anatomy": "thyroid"}, "the train split of thyroid in .* has no image with a class"),
        ({"protocols": {"clinic": "fold-9"}}, "fold-9"),
    ],
)
def test_tasks_that_the_corpus_cannot_serve(
    tiny_corpus: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        task_rows(tiny_corpus, **BREAST | change)


def test_what_leaks_is_in_no_split(tmp_path: Path) -> None:
    """A training image of one source is a test image of another, slightly brighter."""
    image = speckle(0)
    with BatchWriter(
        tmp_path,
        "pretraining",
        "0000",
        64,
        origin=BatchOrigin(licence="", citation=""),
    ) as batch:
        for number in range(3):
            splits = {"default": "train"}
            batch.accept(
                speckle(number),
                key=str(number),
                anatomy="breast",
                patient=str(number),
                splits=splits,
            )
    with BatchWriter(
        tmp_path,
        "task",
        "0000",
        64,
        origin=BatchOrigin(licence="", citation=""),
    ) as batch:
        batch.accept(image + np.uint8(2), key="0", anatomy="breast", splits={"default": "test"})
    rows = select(tmp_path, sources=["pretraining"], protocols={})
    assert rows.set_index("id")["split"].to_dict() == {
        "pretraining:0": "withheld",
        "pretraining:1": "train",
        "pretraining:2": "train",
    }
    assert select(tmp_path, sources=["task"], protocols={})["split"].tolist() == ["test"]


def speckle(seed: int) -> np.ndarray:
    """Coarse noise, different for each seed."""
    coarse = np.random.default_rng(seed).uniform(20, 200, (7, 9))
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC).clip(0, 250).astype(np.uint8)


def test_contradictory_duplicates_are_withheld_from_training_on_request(tmp_path: Path) -> None:
    """Two patients have the same picture with two labels; a third picture is without doubt."""
    origin = BatchOrigin(licence="-", citation="-")
    with BatchWriter(tmp_path, "clinic", "0000", 64, origin=origin) as writer:
        for name, seed, label in (("a", 1, "benign"), ("b", 1, "malignant"), ("c", 2, "benign")):
            writer.accept(
                speckle(seed),
                key=name,
                patient=name,
                anatomy="breast",
                label=label,
                splits={"default": "train"},
            )
    splits = {
        choice: select(tmp_path, sources=[], protocols={}, contradictory=choice)["split"].tolist()
        for choice in ("keep", "withhold")
    }
    assert splits == {"keep": ["train"] * 3, "withhold": ["withheld", "withheld", "train"]}


def test_contradictory_duplicates_stay_in_the_test_set(tmp_path: Path) -> None:
    origin = BatchOrigin(licence="-", citation="-")
    with BatchWriter(tmp_path, "clinic", "0000", 64, origin=origin) as writer:
        for name, label in (("a", "benign"), ("b", "malignant")):
            writer.accept(
                speckle(1),
                key=name,
                patient=name,
                anatomy="breast",
                label=label,
                splits={"default": "test"},
            )
    rows = select(tmp_path, sources=[], protocols={}, contradictory="withhold")
    assert rows["split"].tolist() == ["test", "test"]
