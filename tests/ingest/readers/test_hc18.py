"""HC18: outlines filled, cut or not, examinations kept together, pixel sizes, what is refused."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from arl.ingest.readers import hc18

SHAPE = (137, 193)  # pixels
INSIDE = ((96.0, 68.0), (110.0, 80.0), 25.0)  # centre, axes, degrees
CUT = ((96.0, 20.0), (110.0, 80.0), 25.0)  # leaves the picture at the top
TRAIN = {"000_HC": INSIDE, "001_HC": INSIDE, "010_HC": CUT, "010_2HC": INSIDE, "010_3HC": INSIDE}
TEST = ("000_HC", "001_HC")
SPACING = 0.069136


def ellipse(shape: tuple, thickness: int = 1, level: int = 255) -> np.ndarray:
    return cv2.ellipse(np.zeros(SHAPE, np.uint8), shape, level, thickness)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.fixture
def root(tmp_path: Path, picture: Callable, save: Callable) -> Path:
    root = tmp_path / "HC18"
    training, test = (
        "filename,pixel size(mm),head circumference (mm)\n",
        "filename,pixel size(mm)\n",
    )
    for number, (stem, shape) in enumerate(TRAIN.items()):
        save(root / "training_set" / f"{stem}.png", picture(number, *SHAPE))
        save(root / "training_set" / f"{stem}_Annotation.png", ellipse(shape))
        training += f"{stem}.png,{SPACING},170.5\n"
    for number, stem in enumerate(TEST, start=50):
        save(root / "test_set" / f"{stem}.png", picture(number, *SHAPE), "RGB")
        test += f"{stem}.png,{SPACING * 2}\n"
    (root / "training_set_pixel_size_and_HC.csv").write_text(training)
    (root / "test_set_pixel_size.csv").write_text(test)
    return root


def test_images_spacings_and_examinations(
    root: Path, batch_of: Callable, picture: Callable
) -> None:
    done = batch_of(hc18, root.parent)
    assert done.refused == {}
    assert done.ids() == [
        *(f"training_set/{stem}" for stem in ("000_HC", "001_HC", "010_2HC", "010_3HC", "010_HC")),
        *(f"test_set/{stem}" for stem in TEST),
    ]
    assert set(done.rows["anatomy"]) == {"other"}
    patients = done.column("patient")
    assert (
        patients["training_set/010_HC"]
        == patients["training_set/010_2HC"]
        == patients["training_set/010_3HC"]
    )
    assert (
        patients["training_set/000_HC"] != patients["test_set/000_HC"]
    )  # the sets count on their own
    assert len(set(patients.values())) == 5
    spacing = done.column("pixel_spacing_mm")
    assert spacing["training_set/000_HC"] == pytest.approx(SPACING)
    assert spacing["test_set/000_HC"] == pytest.approx(2 * SPACING)
    assert np.array_equal(done.image("training_set/001_HC"), picture(1, *SHAPE))
    assert done.mask("test_set/000_HC") is None


def test_the_official_test_stays_and_examinations_are_not_divided(
    root: Path, batch_of: Callable
) -> None:
    done = batch_of(hc18, root)
    assert done.split("official") == {
        key: "test" if key.startswith("test") else "train" for key in done.ids()
    }
    default = done.split("default")
    assert {key for key, split in default.items() if split == "test"} == {
        f"test_set/{stem}" for stem in TEST
    }
    assert len({default[f"training_set/010_{name}HC"] for name in ("", "2", "3")}) == 1


@pytest.mark.parametrize("shape", [INSIDE, CUT])
@pytest.mark.parametrize("draw", [{}, {"thickness": 3}, {"level": 1}, {"thickness": -1}])
def test_outlines_are_filled(
    root: Path, batch_of: Callable, save: Callable, shape: tuple, draw: dict[str, int]
) -> None:
    save(root / "training_set/000_HC_Annotation.png", ellipse(shape, **draw))
    mask = batch_of(hc18, root).mask("training_set/000_HC")
    assert overlap(mask, ellipse(shape, -1) > 0) > 0.9  # a thick line is wider by half of it


def test_a_closed_outline_gives_its_own_pixels(root: Path, batch_of: Callable) -> None:
    mask = batch_of(hc18, root).mask("training_set/000_HC")
    assert np.array_equal(mask, binary_fill_holes(ellipse(INSIDE)))


def test_levels_of_other_copies(root: Path, batch_of: Callable, save: Callable) -> None:
    mixed = ellipse(INSIDE)
    mixed[:, ::2] //= 255  # {0, 1, 255}: only half of the outline is white
    save(root / "training_set/000_HC_Annotation.png", mixed)
    assert overlap(batch_of(hc18, root).mask("training_set/000_HC"), ellipse(INSIDE, -1) > 0) > 0.95


def test_annotations_called_mask_and_a_single_set(root: Path, batch_of: Callable) -> None:
    for file in (root / "training_set").glob("*_Annotation.png"):
        file.rename(file.with_name(file.name.replace("_Annotation", "_Mask")))
    for file in (root / "test_set").iterdir():
        file.unlink()
    (root / "test_set").rmdir()
    done = batch_of(hc18, root)
    assert done.refused == {}
    assert done.column("mask") == dict.fromkeys(done.ids(), "head")
    assert len(done.rows) == 5


def edit(root: Path, old: str, new: str) -> None:
    file = root / "training_set_pixel_size_and_HC.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def squiggle() -> np.ndarray:
    canvas = np.zeros(SHAPE, np.uint8)
    canvas[10:120:20, 10:180] = 255
    return canvas


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (
            lambda root, _: (root / "training_set/000_HC.png").unlink(),
            "training_set/000_HC_Annotation.png",
            "it has no image",
        ),
        (
            lambda root, _: (root / "training_set/000_HC.png").unlink(),
            "training_set_pixel_size_and_HC.csv 000_HC",
            "training_set lacks it",
        ),
        (
            lambda root, save: save(root / "training_set/000_HC_Annotation.png", 0 * squiggle()),
            "training_set/000_HC.png",
            "000_HC_Annotation.png is empty",
        ),
        (
            lambda root, save: save(
                root / "training_set/000_HC_Annotation.png", ellipse(INSIDE)[:-1]
            ),
            "training_set/000_HC.png",
            "000_HC_Annotation.png is 193x136, its image 193x137",
        ),
        (
            lambda root, save: save(root / "training_set/000_HC_Annotation.png", squiggle()),
            "training_set/000_HC.png",
            "000_HC_Annotation.png shows neither the outline of an ellipse nor a filled one",
        ),
        (
            lambda root, save: save(
                root / "training_set/000_HC_Annotation.png", np.eye(*SHAPE, dtype=np.uint8)
            ),
            "training_set/000_HC.png",
            "000_HC_Annotation.png shows a line or a dot, no ellipse",
        ),
        (
            lambda root, _: edit(root, "000_HC.png,0.069136,170.5\n", ""),
            "training_set/000_HC.png",
            "training_set_pixel_size_and_HC.csv does not list it",
        ),
        (
            lambda root, _: edit(root, "000_HC.png,0.069136", "000_HC.png,nan"),
            "training_set/000_HC.png",
            "training_set_pixel_size_and_HC.csv gives it the pixel size 'nan'",
        ),
        (
            lambda root, _: edit(root, "000_HC.png,0.069136", "000_HC.png,?"),
            "training_set/000_HC.png",
            "training_set_pixel_size_and_HC.csv gives it the pixel size '?'",
        ),
        (
            lambda root, save: save(root / "training_set/head.png", squiggle()),
            "training_set/head.png",
            "the name head.png is not <number>_HC",
        ),
        (
            lambda root, _: (root / "training_set/notes.txt").write_text(""),
            "training_set/notes.txt",
            "it is not a picture of the dataset",
        ),
    ],
)
def test_refusals(
    root: Path, batch_of: Callable, save: Callable, spoil, name: str, reason: str
) -> None:
    spoil(root, save)
    refused = batch_of(hc18, root).refused
    assert refused[name].startswith(reason)
    assert len(refused) <= 2


def test_other_roots(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds training_set or test_set"):
        hc18.read(root / "training_set")
    edit(root, "pixel size(mm)", "spacing")
    with pytest.raises(
        ValueError,
        match=r"training_set_pixel_size_and_HC.csv lacks the columns \['pixel size\(mm\)'\]",
    ):
        hc18.read(root)
    (root / "training_set_pixel_size_and_HC.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"training_set_pixel_size_and_HC.csv does not exist"
    ):
        hc18.read(root)
