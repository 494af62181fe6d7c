"""HC18: fetal head circumference (van den Heuvel et al., PLoS ONE 2018)."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from arl.corpus.anatomy import OTHER
from arl.corpus.record import Entry, Input, Mask, Record, Refused, refusal
from arl.corpus.splits import DEFAULT, keep_test
from arl.ingest.folders import child, member, pictures, refuse_all, search
from arl.ingest.pictures import read_mask, read_picture
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv

# Folder -> split, table.
_SETS = {
    "training_set": ("train", "training_set_pixel_size_and_HC.csv"),
    "test_set": ("test", "test_set_pixel_size.csv"),
}
_SPACING = "pixel size(mm)"
_NAME = re.compile(r"(?P<number>\d+)_\d*HC", re.IGNORECASE)
_ANNOTATIONS = ("_annotation", "_mask")
_WHITE = 128
# Fraction of its hull that a filled mask covers; an outline covers less.
_FILLED = 0.9
# Pixels across.
_THIN = 8.0
# Mean distance of an outline from its ellipse, pixels.
_CLOSE = 2.0


def read(root: Path) -> list[Input]:
    """One input for each image, each annotation or row without one, and each other file.

    Raises:
        FileNotFoundError: there is neither set, or a set lacks its table.
        ValueError: a table lacks a column, or several folders hold the layout.
    """
    base = search(root, lambda folder: child(folder, *_SETS) is not None)
    if base is None:
        raise FileNotFoundError(f"neither {root} nor a folder in it holds {' or '.join(_SETS)}")
    sets = [name for name in _SETS if child(base, name) is not None]
    return [item for name in sets for item in _inputs(root, base, name)]


def _inputs(root: Path, base: Path, name: str) -> list[Input]:
    files, strays = pictures(member(base, name))
    drawn = {stem: file for stem, file in files.items() if stem.lower().endswith(_ANNOTATIONS)}
    annotations = {stem.rpartition("_")[0]: file for stem, file in drawn.items()}
    images = {stem: file for stem, file in files.items() if stem not in drawn}
    table = read_csv(member(base, _SETS[name][1]), ["filename", _SPACING])
    spacings = {Path(image.strip()).stem: text for image, text in table.to_numpy().tolist()}
    listed = [
        Input(
            file.relative_to(root).as_posix(),
            partial(_records, name, file, annotations.get(stem), spacings.get(stem)),
        )
        for stem, file in images.items()
    ]
    lone = (file for stem, file in annotations.items() if stem not in images)
    gone = [
        refusal(f"{_SETS[name][1]} {stem}", f"{name} lacks it")
        for stem in spacings
        if stem not in images
    ]
    return listed + refuse_all(root, lone, "it has no image") + gone + refuse_all(root, strays)


def _records(name: str, file: Path, annotation: Path | None, spacing: str | None) -> list[Record]:
    official, table = _SETS[name]
    matched = _NAME.fullmatch(file.stem)
    if matched is None:
        raise Refused(f"the name {file.name} is not <number>_HC")
    if spacing is None:
        raise Refused(f"{table} does not list it")
    patient = f"{name}/{matched['number']}"
    image = read_picture(file)
    mask = None if annotation is None else _filled(annotation, read_mask(annotation, image, _WHITE))
    entry = Entry(
        key=f"{name}/{file.stem}",
        patient=patient,
        anatomy=OTHER,
        mask_name=None if mask is None else "head",
        pixel_spacing_mm=_millimetres(table, spacing),
        splits={"official": official, DEFAULT: keep_test(official, patient)},
    )
    return [Record(image, entry, mask)]


def _millimetres(table: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10:
        raise Refused(f"{table} gives it the pixel size {text!r}")
    return value


def _filled(file: Path, drawn: Mask) -> Mask:
    """The filled ellipse (H, W) of an annotation.

    The annotation is filled, a closed outline, or an outline that leaves the picture.
    """
    # (N, 2), x and y.
    points = np.argwhere(drawn)[:, ::-1].astype(np.float32)
    if min(cv2.minAreaRect(points)[1]) < _THIN:
        raise Refused(f"{file.name} shows a line or a dot, no ellipse")
    # An outline becomes filled: all that the ground outside does not reach. A flood through 4
    # neighbours does not slip through a diagonal line.
    ground = np.pad(drawn.astype(np.uint8), 1)
    cv2.floodFill(ground, None, (0, 0), 2, flags=4)
    closed = np.asarray(ground[1:-1, 1:-1] != 2)
    hull = cv2.fillConvexPoly(
        np.zeros(drawn.shape, np.uint8), cv2.convexHull(points).astype(np.int32), 1
    )
    if closed.sum() >= _FILLED * hull.sum():
        return closed
    # The picture cuts this outline, so it cannot be filled: an ellipse completes it.
    ellipse = cv2.fitEllipseDirect(points)
    if not _distance(points, ellipse) <= _CLOSE:
        raise Refused(f"{file.name} shows neither the outline of an ellipse nor a filled one")
    return np.asarray(cv2.ellipse(np.zeros(drawn.shape, np.uint8), ellipse, 1, cv2.FILLED)) > 0


def _distance(points: npt.NDArray[np.float32], ellipse: tuple[Any, Any, float]) -> float:
    """Mean distance of points (N, 2) from an ellipse, pixels; NaN or infinite if degenerate."""
    centre, axes, degrees = ellipse
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    radii = np.array(axes) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.hypot(*(((points - np.array(centre)) @ turn) / radii).T)
    return float(np.mean(np.abs(inside - 1)) * radii.min())


SOURCE = Source(
    name="hc18",
    title=("HC18: fetal head circumference (van den Heuvel et al., PLoS ONE 2018)."),
    read=without_options(read),
    licence="CC BY 4.0",
    citation=(
        "T. L. A. van den Heuvel, D. de Bruijn, C. L. de Korte, B. van Ginneken, Automated "
        "measurement of fetal head circumference using 2D ultrasound images, PLoS ONE "
        "13(8), 2018, doi:10.1371/journal.pone.0200412"
    ),
    obtain=("Zenodo, doi:10.5281/zenodo.1327317 (challenge hc18.grand-challenge.org); open"),
    layout=(
        "<root>/training_set/{000_HC.png, 000_HC_Annotation.png}, test_set/000_HC.png, "
        "training_set_pixel_size_and_HC.csv and test_set_pixel_size.csv (filename, pixel "
        "size(mm)); the layout may lie up to four folders below the root; one of the two "
        "sets is enough. Copies call the annotation 000_HC_Mask.png."
    ),
    keys="<set>/<stem>",
    coding=(
        'Mask "head" = the ellipse whose outline the annotation draws, filled; where the '
        "outline leaves the picture, the ellipse through it. The test set has no "
        "annotations. Pixel spacing by the tables. The anatomy is other: the vocabulary has "
        "no fetal head."
    ),
    patient=(
        'The number before "_", within its set: 010_HC, 010_2HC, 010_3HC are of one '
        "examination. The 999 images for training have 806 numbers and the whole set 551 "
        "women, so one woman may have several numbers. No clips."
    ),
    split=(
        '"official": training_set, test_set. "default": the same test, and a part of the '
        "training numbers as val."
    ),
    refuses=(
        "A missing or damaged image or annotation, an annotation of another size, empty, or "
        "neither outline nor filled ellipse, an image without a pixel size, rows and "
        "annotations without an image, and other files. An image without an annotation is "
        "accepted without a mask."
    ),
)
