"""A site's own export: pictures and one table that says what they show, labels and masks inc"""

import re
from functools import partial
from pathlib import Path

from arl.corpus.anatomy import anatomy_index
from arl.corpus.manifest import PROBES, SPLITS
from arl.corpus.record import Entry, Input, Mask, Pixels, Record, Refused, refusal
from arl.corpus.splits import DEFAULT
from arl.files import sha256
from arl.ingest.dicom.deidentify import keyed_hash, secret_key
from arl.ingest.pictures import read_mask, read_picture
from arl.ingest.source import Source
from arl.ingest.tables import read_csv

TABLE = "pictures.csv"
_WHAT = ["file", "patient", "anatomy", "label", "mask", "mask_file"]
_HOW = ["probe", "device", "depth_cm", "pixel_spacing_mm", "split"]
_WHITE = 128


def read(root: Path, site: str = "site") -> list[Input]:
    """One input for each row of pictures.csv, and for each file it does not name.

    Raises:
        FileNotFoundError: there is no pictures.csv.
        ValueError: it is no CSV or lacks a column, there is no hash key, or the site is no plain
            name.
    """
    return inputs(root, site, synthetic=False)


def inputs(root: Path, site: str, *, synthetic: bool) -> list[Input]:
    """The same, with every image marked synthetic or not."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", site):
        raise ValueError(
            f"site {site!r} must be a short name of lower-case letters, digits and dashes"
        )
    key = secret_key()
    table = read_csv(root / TABLE, [*_WHAT, *_HOW])
    # A split counts only if every row has one.
    if not (table["split"] != "").all():
        table = table.assign(split="")
    rows = [
        dict(zip(table.columns, (cell.strip() for cell in row), strict=True))
        for row in table.to_numpy()
    ]
    visited: set[str] = set()
    result = []
    for line, row in enumerate(rows, start=2):
        name = f"{TABLE}:{line}"
        if row["file"] in visited:
            result.append(refusal(name, f"{TABLE} lists it twice"))
        else:
            result.append(Input(name, partial(_records, root, row, site, key, synthetic)))
        visited |= {row["file"], row["mask_file"]}
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    # Names of files are the site's, and may be patients'.
    return result + [
        refusal(keyed_hash(key, "file", name), f"{TABLE} does not list it")
        for name in files
        if name not in visited and name != TABLE
    ]


def _records(
    root: Path, row: dict[str, str], site: str, key: bytes, synthetic: bool
) -> list[Record]:
    _check(row)
    image, mask = _pixels(root, row)
    entry = Entry(
        key=f"{site}/{sha256(root / row['file'])}",
        site=site,
        patient=keyed_hash(key, "patient", site, "", row["patient"]),
        anatomy=row["anatomy"],
        probe=row["probe"] or "unknown",
        device=row["device"] or None,
        label=row["label"] or None,
        mask_name=row["mask"] if mask is not None else None,
        depth_cm=_number(row, "depth_cm"),
        pixel_spacing_mm=_number(row, "pixel_spacing_mm"),
        synthetic=synthetic,
        splits={DEFAULT: row["split"]} if row["split"] else {},
    )
    return [Record(image, entry, mask)]


def _pixels(root: Path, row: dict[str, str]) -> tuple[Pixels, Mask | None]:
    """A picture and its mask; a refusal does not tell their names, which are the site's."""
    try:
        image = read_picture(_inside(root, row["file"]))
        if not row["mask_file"]:
            return image, None
        return image, read_mask(_inside(root, row["mask_file"]), image, _WHITE)
    except Refused as error:
        reason = str(error)
        for column, what in (("mask_file", "its mask"), ("file", "its picture")):
            reason = reason.replace(Path(row[column]).name or "\0", what)
        raise Refused(reason) from error


def _check(row: dict[str, str]) -> None:
    if not row["patient"]:
        raise Refused("it names no patient, so that it cannot be grouped")
    try:
        anatomy_index(row["anatomy"])
    except ValueError as error:
        raise Refused(str(error)) from error
    for name, allowed in (("probe", PROBES), ("split", SPLITS)):
        if row[name] and row[name] not in allowed:
            raise Refused(f"{name} {row[name]!r} is not one of {', '.join(allowed)}")
    if row["mask_file"] and not row["mask"]:
        raise Refused("it has a mask_file, but mask does not say what that shows")


def _inside(root: Path, name: str) -> Path:
    file = root / name
    if not name or not file.resolve().is_relative_to(root.resolve()):
        raise Refused("it names a file outside of its folder")
    return file


def _number(row: dict[str, str], name: str) -> float | None:
    if not row[name]:
        return None
    try:
        value = float(row[name])
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise Refused(f"{name} {row[name]!r} is not a positive number")
    return value


SOURCE = Source(
    name="picture-table",
    title=(
        "A site's own export: pictures and one table that says what they show, labels and "
        "masks included."
    ),
    read=lambda root, options, dicom: read(root, options.site or "site"),
    options=("site",),
    published=False,
    licence="Property of the site; not for redistribution",
    citation="",
    obtain=(
        "Your own: pictures with a table of what they show, exported under a secret key "
        "(see the layout)"
    ),
    layout=(
        "<root>/pictures.csv and the pictures and masks it names, in any folders below the "
        "root. Columns: file, patient, anatomy, label, mask, mask_file, probe, device, "
        "depth_cm, pixel_spacing_mm, split; beyond the first three an empty cell is "
        "unknown."
    ),
    keys=(
        "<site>/<SHA-256 of the picture's bytes>: a picture that was sent before is "
        "refused, whatever it is called."
    ),
    coding=(
        "Label and mask (what the mask shows) as the table has them; mask_file is white (>= "
        "128) inside."
    ),
    patient="Keyed hash of site and `patient`; required. No clips.",
    split=("`split` (train, val, test) where the whole column is filled, else by patient."),
    refuses=(
        "A missing or damaged picture or mask, a mask without the name of what it shows, an "
        "unknown anatomy, probe or split, a number that is none, a picture listed twice or "
        "not at all. The pictures must be scans alone: text that is burnt into them is not "
        "searched for."
    ),
)
