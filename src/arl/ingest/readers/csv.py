"""A set of one's own, listed in a CSV file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from arl.ingest.source import Source
from arl.ingest.tables import read_csv
from arl.ingest.video import grey_unless_coloured, read_frames

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


@dataclass(frozen=True)
class _Row:
    """One row of the table, completed by the options; an empty text is an empty cell."""

    image: str
    label: str
    patient: str
    clip: str
    frame: str
    site: str
    device: str
    probe: str
    anatomy: str
    mask: str
    mask_name: str
    split: str

    @property
    def is_single_frame(self) -> bool:
        """Whether the row takes one frame of a video."""
        return is_video(Path(self.image)) and self.frame.isdecimal()

    @property
    def key(self) -> str:
        """Unique: of a video, one row may take every frame, or several rows one each."""
        return f"{self.image}/{int(self.frame):05d}" if self.is_single_frame else self.image

    def check(self) -> None:
        """Check the cells before any file is opened.

        Raises:
            Refused: a cell is empty, or holds a word or a number that does not fit.
        """
        if not self.anatomy:
            raise Refused("it has no anatomy: fill the column, or give --anatomy")
        try:
            anatomy_index(self.anatomy)
        except ValueError as error:
            raise Refused(str(error)) from error
        if self.probe not in PROBES:
            raise Refused(f"probe {self.probe!r} is not one of {', '.join(PROBES)}")
        if self.split and split_named(self.split) is None:
            raise Refused(f"split {self.split!r} is not train, val or test")
        if self.frame and not self.frame.isdecimal():
            raise Refused(f"frame {self.frame!r} is not a whole number")
        if self.mask and not self.mask_name:
            raise Refused(
                "nothing says what its mask shows: fill the column mask_name, or give --mask-name"
            )

    def records(self, home: Path, splits: dict[str, str]) -> Iterator[Record]:
        """The picture, the frame, or all frames of the video."""
        self.check()
        file = _inside(home, self.image)
        entry = Entry(
            key=self.image,
            patient=self.patient or None,
            clip=self.clip or None,
            frame=int(self.frame or 0),
            anatomy=self.anatomy,
            probe=self.probe,
            device=self.device or None,
            site=self.site or None,
            label=self.label or None,
            splits=splits,
        )
        if self.mask and is_video(file) and not self.is_single_frame:
            raise Refused("it gives a mask to a video, without the frame that it belongs to")
        records = _frame(file, entry) if self.is_single_frame else media_records(file, entry)
        if not self.mask:
            yield from records
            return
        record = next(records)
        mask = read_mask(_inside(home, self.mask), record.image, _WHITE)
        yield Record(record.image, replace(record.entry, mask_name=self.mask_name), mask)


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
            patient is in two of them, or an option is not in the vocabulary.
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
    rows = _rows(table, stated)
    splits = _splits(table, rows)
    listed = [
        Input(
            f"{table.name}:{line}",
            partial(row.records, home, splits.get(row.key, {})),
            row.label or None,
        )
        for line, row in enumerate(rows, start=2)
    ]
    names_listed = {home / name for row in rows for name in (row.image, row.mask) if name}
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


def _rows(table: Path, stated: dict[str, str | None]) -> list[_Row]:
    """The rows of the table; where a cell is empty, the option of its name counts."""
    with table.open(encoding="utf-8", errors="replace") as stream:
        titles = stream.readline()
    # Spreadsheets in many languages separate by semicolons.
    separator = ";" if titles.count(";") > titles.count(",") else ","
    cells = read_csv(table, ["image"], separator, _OPTIONAL)
    rows = []
    for values in cells.to_numpy():
        row = dict(zip(cells.columns, (str(cell).strip() for cell in values), strict=True))
        # Tables from Windows have its separator in their paths.
        row |= {name: row[name].replace("\\", "/") for name in ("image", "mask")}
        rows.append(
            _Row(**row | {name: row[name] or value or "" for name, value in stated.items()})
        )
    return rows


def _splits(table: Path, rows: list[_Row]) -> dict[str, dict[str, str]]:
    """Key -> protocol -> split; rows with an unknown split are left to their refusal."""
    values = [bool(row.split) for row in rows]
    if any(values) and not all(values):
        raise ValueError(f"{table}: line {values.index(False) + 2} has no split, others have one")
    stated: dict[str, tuple[str, str]] = {}
    for row in rows:
        split = split_named(row.split)
        group = row.patient or row.clip or row.image
        if split and stated.setdefault(row.key, (split, group))[0] != split:
            raise ValueError(f"{table}: {row.key} is in two splits")
    try:
        return named_splits(stated)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from error


def _inside(home: Path, name: str) -> Path:
    # The path is not resolved: data under version control often is a link that leads out.
    file = Path(os.path.normpath(home / name))
    if not name or not file.is_relative_to(os.path.normpath(home)):
        raise Refused(f"{name!r} is no path inside of the folder")
    return file


def _frame(file: Path, entry: Entry) -> Iterator[Record]:
    """One frame of a video; a row that names it makes it official, so thinning keeps it."""
    frames = (
        (entry.frame, grey_unless_coloured(frame))
        for frame in islice(read_frames(file), entry.frame, None)
    )
    for record in clip_records(frames, entry):
        yield replace(record, entry=replace(record.entry, official=True))
        return
    raise Refused(f"{file.name} has no frame {entry.frame}")


SOURCE = Source(
    name="csv",
    title="A set of one's own, listed in a CSV file.",
    read=lambda root, options, dicom: read(
        root,
        anatomy=options.anatomy,
        probe=options.probe or "unknown",
        device=options.device,
        site=options.site,
        mask_name=options.mask_name,
    ),
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
