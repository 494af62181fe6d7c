from pathlib import Path

import pytest

from arl.data.selection import select, task_rows

BREAST = {
    "kind": "classification",
    "sources": [],
    "anatomy": "breast",
    "classes": ["benign", "malignant"],
    "mask": "",
    "protocols": {},
}


def test_a_classification_task_has_targets_in_the_order_of_its_classes(tiny_corpus: Path) -> None:
    rows = task_rows(tiny_corpus, **BREAST)
    assert len(rows) == 30
    assert set(rows["anatomy"]) == {"breast"}
    assert (rows["target"] == (rows["label"] == "malignant")).all()
    assert set(rows["split"]) == {"train", "val", "test"}


def test_a_segmentation_task_has_the_rows_with_its_mask(tiny_corpus: Path) -> None:
    rows = task_rows(tiny_corpus, **BREAST | {"kind": "segmentation", "anatomy": "cardiac", "mask": "lv"})
    assert len(rows) == 30
    assert (rows["mask"] == "lv").all()


def test_sources_are_chosen(tiny_corpus: Path) -> None:
    assert len(select(tiny_corpus, sources=["clinic"], protocols={})) == 60
    with pytest.raises(ValueError, match=r"no source \['hospital'\]; it has \['clinic'\]"):
        select(tiny_corpus, sources=["hospital"], protocols={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anatomy": "thyroid"}, "train split is empty"),
        ({"classes": ["benign", "malignant", "normal"]}, r"train split has no image of class \['normal'\]"),
        ({"kind": "regression"}, "regression"),
        ({"protocols": {"clinic": "fold-9"}}, "fold-9"),
    ],
)
def test_tasks_that_the_corpus_cannot_serve(tiny_corpus: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_rows(tiny_corpus, **BREAST | change)
