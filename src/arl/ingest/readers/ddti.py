"""DDTI: thyroid ultrasound with nodule outlines and TI-RADS."""

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

from arl.corpus.record import Entry, Input, Mask, Pixels, Record, Refused, refusal
from arl.corpus.splits import DEFAULT, stratified
from arl.ingest.folders import child, entries, member, pictures, refuse_all, search
from arl.ingest.pictures import read_mask, read_picture
from arl.ingest.source import Source, without_options

_TIRADS = ("2", "3", "4a", "4b", "4c", "5")
_NONE = ("", "none", "nan", "null")
_NAME = re.compile(r"(?P<case>\d+)_(?P<image>\d+)")
_WHITE = 128
# Pixels; scans are 560 wide.
_FARTHEST = 10_000

# x and y of its points.
Outline = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Case:
    """The content of an XML file; `damage` where it cannot be read.

    Attributes:
        outlines: Number of the image, and an outline in it.
    """

    tirads: str = ""
    outlines: tuple[tuple[int, Outline], ...] = ()
    damage: str = ""

    @classmethod
    def read(cls, file: Path) -> "_Case":
        """Read the XML file of a case."""
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
            return cls(damage=f"{file.name} is not readable XML ({type(error).__name__})")
        outlines = [
            (int(number), outline)
            for mark in root.iter("mark")
            if (number := (mark.findtext("image") or "").strip()).isdecimal()
            for outline in _outlines(mark.findtext("svg") or "")
        ]
        return cls((root.findtext(".//tirads") or "").strip().lower(), tuple(outlines))

    def mask(self, number: int, image: Pixels) -> Mask:
        """The filled outlines of an image (H, W)."""
        canvas = np.zeros(image.shape[:2], np.uint8)
        # One by one: overlapping outlines are no holes.
        for position, outline in self.outlines:
            if position == number:
                cv2.fillPoly(canvas, [np.array(outline, np.int32)], 1)
        return canvas > 0


def read(root: Path) -> list[Input]:
    """One input for each image, each mark or mask without one, and each other file.

    Raises:
        FileNotFoundError: the root holds neither layout.
        ValueError: it holds both, or one of them several times.
    """
    bundle = search(root, _is_bundle)
    original = search(root, _is_original)
    if bundle and original:
        raise ValueError(f"{root} holds DDTI twice, give one as the root: {bundle} and {original}")
    if bundle:
        return _read_bundle(root, bundle)
    if original:
        return _read_original(root, original)
    raise FileNotFoundError(
        f"neither {root} nor a folder in it holds <case>.xml with <case>_1.jpg, "
        "or image and mask (unpack DDTI.zip)"
    )


def _is_bundle(folder: Path) -> bool:
    names_listed = folder.name.lower() == "1_or_data" or child(folder, "category.csv") is not None
    return names_listed and child(folder, "image") is not None and child(folder, "mask") is not None


def _is_original(folder: Path) -> bool:
    paths = entries(folder)
    return any(p.suffix.lower() == ".xml" for p in paths) and any(
        _NAME.fullmatch(p.stem) for p in paths
    )


def _read_bundle(root: Path, base: Path) -> list[Input]:
    images, strays = pictures(member(base, "image"))
    masks, more = pictures(member(base, "mask"))
    listed = [
        Input(file.relative_to(root).as_posix(), partial(_bundle_records, file, masks.get(stem)))
        for stem, file in images.items()
    ]
    lone = refuse_all(
        root, (mask for stem, mask in masks.items() if stem not in images), "it has no image"
    )
    return listed + lone + refuse_all(root, strays + more)


def _bundle_records(file: Path, mask: Path | None) -> list[Record]:
    image = read_picture(file)
    name = None if mask is None else "nodule"
    entry = Entry(key=file.stem, anatomy="thyroid", mask_name=name)
    return [Record(image, entry, None if mask is None else read_mask(mask, image, _WHITE))]


def _read_original(root: Path, base: Path) -> list[Input]:
    images, strays = pictures(base)
    files = {
        file.stem: file for file in strays if file.parent == base and file.suffix.lower() == ".xml"
    }
    cases = {case: _Case.read(file) for case, file in files.items()}
    groups = {stem: matched["case"] for stem in images if (matched := _NAME.fullmatch(stem))}
    splits = stratified(
        {stem: cases[case].tirads for stem, case in groups.items() if case in cases}, groups
    )
    listed = [
        Input(
            file.relative_to(root).as_posix(),
            partial(
                _original_records,
                file,
                groups.get(stem),
                cases.get(groups.get(stem, "")),
                splits.get(stem, ""),
            ),
        )
        for stem, file in images.items()
    ]
    alone = [
        refusal(file.relative_to(root).as_posix(), cases[case].damage or "no image is of this case")
        for case, file in files.items()
        if case not in groups.values()
    ]
    unmarked = [
        refusal(f"{case}.xml image {number}", "the case marks it, but there is no such image")
        for case, stated in cases.items()
        for number in sorted({number for number, _ in stated.outlines})
        if f"{case}_{number}" not in images
    ]
    others = [file for file in strays if file not in files.values()]
    return listed + unmarked + alone + refuse_all(root, others)


def _outlines(svg: str) -> list[Outline]:
    """The outlines of a mark that can be filled.

    The text is [{"points": [{"x": 1, "y": 2}, ...], ...}, ...].
    """
    try:
        regions = json.loads(svg)
        result = [
            [(round(float(p["x"])), round(float(p["y"]))) for p in region["points"]]
            for region in regions
        ]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return []
    return [
        tuple(points)
        for points in result
        if len(points) > 2 and max(map(abs, sum(points, ()))) < _FARTHEST
    ]


def _original_records(
    file: Path, case: str | None, stated: _Case | None, split: str
) -> list[Record]:
    if case is None:
        raise Refused(f"the name {file.name} is not <case>_<image>")
    if stated is None:
        raise Refused(f"there is no {case}.xml")
    if stated.damage:
        raise Refused(stated.damage)
    if stated.tirads not in _TIRADS + _NONE:
        raise Refused(f"TI-RADS {stated.tirads!r} is not one of {', '.join(_TIRADS)}")
    image = read_picture(file)
    number = int(file.stem.rpartition("_")[2])
    mask = stated.mask(number, image)
    entry = Entry(
        key=file.stem,
        patient=case,
        anatomy="thyroid",
        label=f"tirads-{stated.tirads}" if stated.tirads in _TIRADS else None,
        mask_name="nodule" if mask.any() else None,
        splits={DEFAULT: split},
    )
    return [Record(image, entry, mask if mask.any() else None)]


SOURCE = Source(
    name="ddti",
    title=(
        "DDTI: thyroid ultrasound with nodule outlines and TI-RADS (Pedraza et al., SPIE "
        "9287, 2015); two layouts circulate."
    ),
    read=without_options(read),
    licence="Open access; terms not stated",
    citation=(
        "L. Pedraza, C. Vargas, F. Narvaez, O. Duran, E. Munoz, E. Romero, An open access "
        "thyroid ultrasound image database, Proc. SPIE 9287, 2015, doi:10.1117/12.2073532"
    ),
    obtain=(
        "CIM@LAB, Universidad Nacional de Colombia, or Kaggle 'DDTI'; bundle: page of TN3K "
        "(GitHub haifangong)"
    ),
    layout=(
        "Original: <root>/<case>.xml and <case>_<image>.jpg side by side (in archive, on "
        "Kaggle); in the TN3K bundle: 1_or_data/{image,mask}/1.PNG, unpacked from DDTI.zip. "
        "Either up to four folders below the root."
    ),
    keys="The picture's stem.",
    coding=(
        'Original: label = TI-RADS of the case, "tirads-2", -3, -4a, -4b, -4c, -5, none '
        'where the case has none; it grades suspicion and is no diagnosis. Mask "nodule" = '
        "the outlines of all marks of the image, filled; marks whose svg is empty or is no "
        "JSON are skipped, so an image may have no mask. Bundle: no label, as its makers "
        'call category.csv forged; mask "nodule" = levels >= 128.'
    ),
    patient=(
        "Original: the case. Bundle: its numbers are not the cases', so there is no patient "
        "and a split by patient cannot be claimed. No clips."
    ),
    split=(
        'No official split. Original: "default" is drawn by case, each TI-RADS in equal '
        "proportion; bundle: by image."
    ),
    refuses=(
        "A missing or damaged image, mask or XML, another TI-RADS, a mask of another size "
        "or empty (bundle), a name that is not <case>_<image> or without its XML "
        "(original), marks and masks without an image, other files."
    ),
)
