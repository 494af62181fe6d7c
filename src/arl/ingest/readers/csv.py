"""A set of one's own, listed in a CSV file."""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from arl.corpus.anatomy import anatomy_index
from arl.corpus.manifest import PROBES
from arl.corpus.record import Entry, Input, Record, Refused, refusal
from arl.corpus.splits import named_splits, split_named
from arl.ingest.clips import clip_records, is_media, is_video, media_records
from arl.ingest.folders import entries, files_below
from arl.ingest.pictures import read_mask
from arl.ingest.readers.folder import check_options
from arl.ingest.source import Options, Source
from arl.ingest.tables import read_csv
from arl.ingest.video import grey_unless_coloured, read_frames
from arl.settings import Dicom

_OPTIONAL = [
    "label",
    "patient",
    "clip",
    "frame",
    "site",
    "device",
    "probe",
    "anatomy",
    "mask",
    "mask_name",
    "split",
]
_WHITE = 128
_Row = dict[str, str]


def read(
    root: Path,
    anatomy: str | None = None,
    probe: str = "unknown",
    device: str | None = None,
    site: str | None = None,
    mask_name: str | None = None,
) -> list[Input]:
    """One input for each row of the CSV file, and for each picture or video that it does not list.

    Raises:
        FileNotFoundError: there is no CSV file.
        ValueError: there are several, it has no column `image`, only some rows have a split, a
            patient is in two of
            them, or an option is not in the vocabulary.
    """
    check_options(anatomy, probe)
    table = _table(root)
    home = table.parent
    stated = {
        "anatomy": anatomy,
        "probe": probe,
        "device": device,
        "site": site,
        "mask_name": mask_name,
    }
    rows = [_filled(row, stated) for row in _rows(table)]
    splits = _splits(table, rows)
    listed = [
        Input(
            f"{table.name}:{line}",
            partial(_records, home, row, splits.get(_key(row), {})),
            row["label"] or None,
        )
        for line, row in enumerate(rows, start=2)
    ]
    names_listed = {
        home / row[column] for row in rows for column in ("image", "mask") if row[column]
    }
    strays = [file for file in files_below(home) if is_media(file) and file not in names_listed]
    return listed + [
        refusal(file.relative_to(home).as_posix(), f"{table.name} does not list it")
        for file in strays
    ]


def _table(root: Path) -> Path:
    if root.is_file():
        return root
    tables = [file for file in entries(root) if file.suffix.lower() == ".csv"]
    if not tables:
        raise FileNotFoundError(f"{root} holds no CSV file")
    if len(tables) > 1:
        raise ValueError(
            f"{root} holds several CSV files, give one of them as the root: "
            f"{tables[0]}, {tables[1]}"
        )
    return tables[0]


def _rows(table: Path) -> list[_Row]:
    with table.open(encoding="utf-8", errors="replace") as stream:
        titles = stream.readline()
    separator = ";" if titles.count(";") > titles.count(",") else ","
    cells = read_csv(table, ["image"], separator, _OPTIONAL)
    return [
        dict(zip(cells.columns, (str(cell).strip() for cell in row), strict=True))
        for row in cells.to_numpy()
    ]


def _filled(row: _Row, stated: dict[str, str | None]) -> _Row:
    row = {**row, "image": row["image"].replace("\\", "/"), "mask": row["mask"].replace("\\", "/")}
    return row | {name: row[name] or value or "" for name, value in stated.items()}


def _key(row: _Row) -> str:
    """Unique: of a video, one row may take every frame, or several rows one each."""
    return f"{row['image']}/{int(row['frame']):05d}" if _is_single_frame(row) else row["image"]


def _is_single_frame(row: _Row) -> bool:
    return is_video(Path(row["image"])) and row["frame"].isdecimal()


def _splits(table: Path, rows: list[_Row]) -> dict[str, dict[str, str]]:
    """Key -> protocol -> split; rows with an unknown split are left to their refusal."""
    values = [bool(row["split"]) for row in rows]
    if any(values) and not all(values):
        raise ValueError(f"{table}: line {values.index(False) + 2} has no split, others have one")
    stated: dict[str, tuple[str, str]] = {}
    for row in rows:
        split = split_named(row["split"])
        if (
            split
            and stated.setdefault(
                _key(row), (split, row["patient"] or row["clip"] or row["image"])
            )[0]
            != split
        ):
            raise ValueError(f"{table}: {_key(row)} is in two splits")
    try:
        return named_splits(stated)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from error


def _records(home: Path, row: _Row, splits: dict[str, str]) -> Iterator[Record]:
    _check(row)
    file = _inside(home, row["image"])
    entry = Entry(
        key=row["image"],
        patient=row["patient"] or None,
        clip=row["clip"] or None,
        frame=int(row["frame"] or 0),
        anatomy=row["anatomy"],
        probe=row["probe"],
        device=row["device"] or None,
        site=row["site"] or None,
        label=row["label"] or None,
        splits=splits,
    )
    if _is_single_frame(row):
        yield _masked(home, row, _frame(file, entry))
    elif row["mask"]:
        if is_video(file):
            raise Refused("it gives a mask to a video, without the frame that it belongs to")
        yield _masked(home, row, next(media_records(file, entry)))
    else:
        yield from media_records(file, entry)


def _check(row: _Row) -> None:
    if not row["anatomy"]:
        raise Refused("it has no anatomy: fill the column, or give --anatomy")
    try:
        anatomy_index(row["anatomy"])
    except ValueError as error:
        raise Refused(str(error)) from error
    if row["probe"] not in PROBES:
        raise Refused(f"probe {row['probe']!r} is not one of {', '.join(PROBES)}")
    if row["split"] and split_named(row["split"]) is None:
        raise Refused(f"split {row['split']!r} is not train, val or test")
    if row["frame"] and not row["frame"].isdecimal():
        raise Refused(f"frame {row['frame']!r} is not a whole number")
    if row["mask"] and not row["mask_name"]:
        raise Refused(
            "nothing says what its mask shows: fill the column mask_name, or give --mask-name"
        )


def _inside(home: Path, name: str) -> Path:
    file = Path(
        os.path.normpath(home / name)
    )  # links may lead out: data under version control often is one
    if not name or not file.is_relative_to(os.path.normpath(home)):
        raise Refused(f"{name!r} is no path inside of the folder")
    return file


def _frame(file: Path, entry: Entry) -> Record:
    frames = (
        (entry.frame, grey_unless_coloured(frame))
        for frame in islice(read_frames(file), entry.frame, None)
    )
    for record in clip_records(frames, entry):
        return replace(record, entry=replace(record.entry, official=True))
    raise Refused(f"{file.name} has no frame {entry.frame}")


def _masked(home: Path, row: _Row, record: Record) -> Record:
    if not row["mask"]:
        return record
    mask = read_mask(_inside(home, row["mask"]), record.image, _WHITE)
    return Record(record.image, replace(record.entry, mask_name=row["mask_name"]), mask)


def _read(root: Path, options: Options, _: Dicom) -> list[Input]:
    return read(
        root,
        anatomy=options.anatomy,
        probe=options.probe or "unknown",
        device=options.device,
        site=options.site,
        mask_name=options.mask_name,
    )


SOURCE = Source(
    name="csv",
    title="A set of one's own, listed in a CSV file.",
    read=_read,
    options=("anatomy", "probe", "device", "site", "mask_name"),
    published=False,
    licence="The owner's",
    citation="",
    obtain=(
        "Your own pictures and a CSV file that lists them, `arl ingest csv --name my-set "
        "--root ...`"
    ),
    layout=(
        "The root is the CSV file, or a folder with one. Column `image`: a picture or a "
        "video, relative to the file's folder. Columns that may be missing or empty: label, "
        "patient, clip, frame, site, device, probe, anatomy, mask (a picture that is white, "
        ">= 128, inside), mask_name (what it shows), split. Commas or semicolons."
    ),
    keys="`image`; frames of a video <image>/<frame>, 0-based.",
    coding=(
        "A row with a video is all its frames, or with `frame` that one alone, which may "
        "have a mask. Anatomy, probe, device, site and mask_name of all rows may be options "
        "of the command instead; what a row says goes first. Grey unless more than 2 % of "
        "the pixels are coloured."
    ),
    patient=(
        "`patient`, kept as it is: a hospital's export with identifiers is for "
        "`picture-table`. Clip: the video, or `clip` of a picture."
    ),
    split=(
        "`split` (train, val, test), given for every row or for none; without val, 15 % of "
        "the training patients (else clips, images) are it."
    ),
    refuses=(
        "A missing or damaged picture, video or mask, a mask of another size, empty or "
        "without the name of what it shows, a path out of the folder, an unknown anatomy, "
        "probe, split or frame, a row given twice, pictures and videos that the file does "
        "not list. A patient in several splits is an error of the whole."
    ),
)
