"""DDTI: both layouts, marks that cannot be filled, TI-RADS, cases kept together, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arl.corpus import splits
from arl.ingest.readers import ddti

SQUARE = [(5, 7), (5, 20), (18, 20), (18, 7)]
OTHER = [(30, 10), (30, 30), (50, 30), (50, 10)]
TIRADS = {1: "2", 2: "4a", 3: "None", 4: "5", 5: "4A ", 6: "", 7: "4c", 8: "3", 9: "4b", 10: "5"}
# case -> images, each with its marks
IMAGES = (
    {case: {1: [[SQUARE]]} for case in TIRADS}
    | {
        1: {1: [[SQUARE], [OTHER]], 2: [[SQUARE, OTHER]]},  # two marks, one mark of two outlines
        2: {1: [""], 2: ["[{"], 3: [[SQUARE]]},  # svg empty, no JSON
        3: {1: [[SQUARE[:2]]], 2: [[]]},  # a line, nothing
    }
)


def svg(outlines: list[list[tuple[int, int]]] | str) -> str:
    if isinstance(outlines, str):
        return outlines
    points = [
        {"points": [{"x": x, "y": y} for x, y in outline], "regionType": "freehand"}
        for outline in outlines
    ]
    return json.dumps(points)


def case(number: int, tirads: str, images: dict) -> str:
    marks = "".join(
        f"<mark><image>{image}</image><svg>{svg(mark)}</svg></mark>"
        for image, marks in images.items()
        for mark in marks
    )
    about = f"<number>{number}</number><age>49</age><sex>F</sex><composition>solid</composition>"
    return f'<?xml version="1.0"?>\n<case>{about}<tirads>{tirads}</tirads>{marks}</case>\n'


def filled(*boxes: list[tuple[int, int]]) -> np.ndarray:
    mask = np.zeros((37, 53), np.bool_)
    for (left, top), _, (right, bottom), _ in boxes:
        mask[top : bottom + 1, left : right + 1] = True
    return mask


@pytest.fixture
def original(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    root = tmp_path / "ddti" / "archive"
    for number, tirads in TIRADS.items():
        for image in IMAGES[number]:
            save(
                root / f"{number}_{image}.jpg", picture(10 * number + image, channels=3), quality=95
            )
        (root / f"{number}.xml").write_text(case(number, tirads, IMAGES[number]))
    return root


@pytest.fixture
def bundle(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    root = tmp_path / "Thyroid Dataset" / "DDTI dataset" / "DDTI"
    for number in range(1, 6):
        save(root / "1_or_data" / "image" / f"{number}.PNG", picture(number))
        save(root / "1_or_data" / "mask" / f"{number}.PNG", filled(SQUARE).astype(np.uint8) * 255)
        save(root / "2_preprocessed_data" / "stage1" / "p_image" / f"{number}.PNG", picture(number))
    (root / "1_or_data" / "category.csv").write_text("ID,CATE\n1.PNG,0\n")
    return root


def test_images_labels_and_cases(original: Path, batch_of: Callable) -> None:
    done = batch_of(ddti, original.parent)
    assert done.refused == {}
    assert done.ids() == [f"{number}_{image}" for number in TIRADS for image in IMAGES[number]]
    labels = done.column("label")
    assert [labels[f"{number}_1"] for number in (1, 2, 3, 4, 5, 6)] == [
        "tirads-2", "tirads-4a", None, "tirads-5", "tirads-4a", None,
    ]  # fmt: skip
    assert done.column("patient")["2_3"] == "ddti:2"
    assert set(done.rows["anatomy"]) == {"thyroid"}
    assert splits.grouping(done.rows) == "patient"
    split = done.split("default")
    assert all(
        split[f"{number}_{image}"] == split[f"{number}_1"]
        for number in TIRADS
        for image in IMAGES[number]
    )


def test_outlines_of_all_marks_are_filled(original: Path, batch_of: Callable) -> None:
    done = batch_of(ddti, original)
    assert np.array_equal(done.mask("1_1"), filled(SQUARE, OTHER))
    assert np.array_equal(done.mask("1_2"), filled(SQUARE, OTHER))
    assert np.array_equal(done.mask("2_3"), filled(SQUARE))
    assert [done.mask(key) for key in ("2_1", "2_2", "3_1", "3_2")] == [None] * 4
    assert done.column("mask")["2_1"] is None


@pytest.mark.parametrize(
    "text",
    [
        '[{"points": [{"x": 1e9, "y": 1}, {"x": 2, "y": 2}, {"x": 3, "y": 1}]}]',
        '[{"points": [{"x": NaN, "y": 1}, {"x": 2, "y": 2}, {"x": 3, "y": 1}]}]',
        '[{"points": [{"x": 1}]}]',
        '{"points": 3}',
        "[" * 100_000,
        "7",
    ],
)
def test_marks_that_cannot_be_filled_are_skipped(
    original: Path, batch_of: Callable, text: str
) -> None:
    (original / "1.xml").write_text(case(1, "2", {1: [text, [SQUARE]], 2: [text]}))
    done = batch_of(ddti, original)
    assert done.refused == {}
    assert np.array_equal(done.mask("1_1"), filled(SQUARE))
    assert done.mask("1_2") is None


def test_overlapping_outlines_leave_no_hole(original: Path, batch_of: Callable) -> None:
    (original / "1.xml").write_text(case(1, "2", {1: [[SQUARE, SQUARE]], 2: [[SQUARE]]}))
    assert np.array_equal(batch_of(ddti, original).mask("1_1"), filled(SQUARE))


def test_the_bundle_has_neither_labels_nor_patients(
    bundle: Path, batch_of: Callable, picture: Callable
) -> None:
    done = batch_of(ddti, bundle.parent.parent)
    assert done.refused == {}
    assert done.ids() == ["1", "2", "3", "4", "5"]
    assert set(done.column("label").values()) == {None}  # category.csv is forged
    assert splits.grouping(done.rows) == "image"
    assert np.array_equal(done.image("3"), picture(3))
    assert np.array_equal(done.mask("3"), filled(SQUARE))
    assert batch_of(ddti, bundle / "1_or_data").ids() == done.ids()


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (lambda root: (root / "4.xml").unlink(), "4_1.jpg", "there is no 4.xml"),
        (
            lambda root: (root / "4.xml").write_text("<case>"),
            "4_1.jpg",
            "4.xml is not readable XML (ParseError)",
        ),
        (lambda root: (root / "4_1.jpg").unlink(), "4.xml", "no image is of this case"),
        (
            lambda root: (root / "4_1.jpg").unlink(),
            "4.xml image 1",
            "the case marks it, but there is no such image",
        ),
        (
            lambda root: (root / "1_2.jpg").unlink(),
            "1.xml image 2",
            "the case marks it, but there is no such image",
        ),
        (
            lambda root: (root / "4_1.jpg").write_bytes(b"\xff\xd8\xff"),
            "4_1.jpg",
            "4_1.jpg is not a readable picture",
        ),
        (
            lambda root: (root / "4.xml").write_text(case(4, "6", {1: [[SQUARE]]})),
            "4_1.jpg",
            "TI-RADS '6' is not one of 2, 3, 4a, 4b, 4c, 5",
        ),
        (
            lambda root: (root / "4_1.jpg").rename(root / "four.jpg"),
            "four.jpg",
            "the name four.jpg is not <case>_<image>",
        ),
        (
            lambda root: (root / "README.txt").write_text(""),
            "README.txt",
            "it is not a picture of the dataset",
        ),
        (
            lambda root: (root / "99.xml").write_text("<case/>"),
            "99.xml",
            "no image is of this case",
        ),
        (
            lambda root: (root / "99.xml").write_text("<case"),
            "99.xml",
            "99.xml is not readable XML",
        ),
    ],
)
def test_refusals_of_the_original(
    original: Path, batch_of: Callable, spoil, name: str, reason: str
) -> None:
    spoil(original)
    refused = batch_of(ddti, original).refused
    assert refused[name].startswith(reason)
    assert len(refused) <= 3


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (lambda root, _: (root / "image/2.PNG").unlink(), "mask/2.PNG", "it has no image"),
        (
            lambda root, save: save(root / "mask/2.PNG", np.zeros((37, 53), np.uint8)),
            "image/2.PNG",
            "2.PNG is empty",
        ),
        (
            lambda root, save: save(root / "mask/2.PNG", np.ones((53, 37), np.uint8)),
            "image/2.PNG",
            "2.PNG is 37x53",
        ),
        (
            lambda root, _: (root / "image/list.txt").write_text(""),
            "image/list.txt",
            "it is not a picture of the dataset",
        ),
    ],
)
def test_bundle_refusals(
    bundle: Path, batch_of: Callable, save: Callable, spoil, name: str, reason: str
) -> None:
    spoil(bundle / "1_or_data", save)
    refused = batch_of(ddti, bundle / "1_or_data").refused
    assert list(refused) == [name]
    assert refused[name].startswith(reason)


def test_other_roots(tmp_path: Path, original: Path, bundle: Path) -> None:
    with pytest.raises(ValueError, match="holds DDTI twice, give one as the root"):
        ddti.read(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"holds <case>.xml with <case>_1.jpg, or image and mask"
    ):
        ddti.read(bundle / "2_preprocessed_data")
