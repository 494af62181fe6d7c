"""A hospital's drop of DICOM files: any tree of folders, whatever the files are called."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from arl.corpus.record import Entry, Input, Record, Refused
from arl.ingest.dicom.burnt_in_text import MASK, QUARANTINE
from arl.ingest.dicom.deidentify import (
    content_pseudonyms,
    key_id,
    keyed_hash,
    pseudonyms,
    secret_key,
)
from arl.ingest.dicom.frames import frames, read_header
from arl.ingest.dicom.pixel_data import read_attributes
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.key_map import KeyMap
from arl.ingest.label_table import (
    ATTRIBUTES,
    LabelRow,
    LabelTable,
    merge_tables,
    read_label_table,
    with_labels,
)
from arl.ingest.segmentations import Segmentations, image_code, read_segmentations
from arl.ingest.source import Source
from arl.ingest.structured_reports import read_reports
from arl.settings import Dicom


def read(
    root: Path, dicom: Dicom, site: str = "hospital", labels: LabelTable | None = None
) -> list[Input]:
    """One input for each file; `site` names the institution in the manifest.

    Raises:
        FileNotFoundError: the root is not a folder.
        ValueError: no hash key or a weak one, a folder that cannot be read, a site that is no plain
            name, or burnt-in text that is neither masked nor quarantined.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", site):
        raise ValueError("the site must be a short name of lower-case letters, digits and dashes")
    if dicom.burnt_in_text not in (QUARANTINE, MASK):
        rule = f"{QUARANTINE} or {MASK}: hospital images may show names"
        raise ValueError(f"dicom.burnt_in_text is {dicom.burnt_in_text!r}, it must be {rule}")
    key = secret_key()
    reading = Reading(
        site,
        key,
        AnatomyRules.from_settings(dicom),
        dicom.burnt_in_text,
        accept_unidentified=dicom.unidentified == "accept",
        labels=labels,
        key_map=KeyMap.read(key),
        segmentations=segmentations(dicom),
    )
    return inputs(root, reading)


@dataclass(frozen=True)
class Reading:
    """How the files of a drop are read; see `dicom.frames`."""

    site: str
    key: bytes = field(repr=False)
    rules: AnatomyRules
    burnt_in_text: str
    stills_by_content: bool = False
    accept_unidentified: bool = False
    labels: LabelTable | None = field(default=None, repr=False)
    key_map: KeyMap | None = field(default=None, repr=False)
    segmentations: Segmentations | None = field(default=None, repr=False)

    def file_name(self, relative: Path) -> str:
        """The hash that stands for a path in the quarantine, as the corpus knows it."""
        value = file_name(relative, self.key)
        return value if self.key_map is None else self.key_map.lookup(value).value


def inputs(root: Path, reading: Reading) -> list[Input]:
    """One input for each file below the root; names are keyed hashes of the relative paths."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    return [file_input(file, file.relative_to(root), reading) for file in dicom_files(root)]


def file_input(file: Path, relative: Path, reading: Reading) -> Input:
    """The input of one DICOM file."""
    return Input(reading.file_name(relative), partial(_records, file, relative, reading))


def file_name(relative: Path, key: bytes) -> str:
    """The keyed hash that stands for a path in the quarantine; paths need not be UTF-8."""
    return text_name(os.fsencode(relative).decode("latin-1"), key)


def text_name(path: str, key: bytes) -> str:
    """`file_name` of a path whose bytes are written as Latin-1, as the quarantine key has it."""
    return keyed_hash(key, "file", path)


def relative_paths(root: Path, key: bytes) -> dict[str, str]:
    """Hash -> path of every file below the root, for the encrypted `quarantine-key`."""
    paths = [file.relative_to(root) for file in dicom_files(root)]
    lookup = KeyMap.read(key).lookup
    return {
        lookup(file_name(path, key)).value: os.fsencode(path).decode("latin-1") for path in paths
    }


def dicom_files(root: Path) -> list[Path]:
    """All files below the root. Linked folders are followed, each real folder once."""

    def refuse(_: OSError) -> None:
        raise ValueError(
            "a folder of the drop cannot be read (its name is withheld): check the permissions"
        ) from None

    files: list[Path] = []
    # A link may lead into a folder above itself.
    visited: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders.sort()
        files += [Path(folder, name) for name in names]
    return sorted(files)


def _records(file: Path, relative: Path, reading: Reading) -> Iterator[Record]:
    header = read_header(file)
    names = pseudonyms(header, reading.key, reading.site)
    shape = int(header.Rows), int(header.Columns)
    segmented = image_code(reading.key, str(header.get("SOPInstanceUID", "")))
    if names.patient is None and reading.accept_unidentified:
        names = content_pseudonyms(file, reading.key)
    if names.image is None or names.patient is None:
        raise Refused(
            "it has no SOP instance UID, or names neither a patient nor a study: "
            "it cannot be grouped"
        )
    hashed_by = key_id(reading.key)
    if reading.key_map is not None:
        if names.patient is not None:
            hashed_by = reading.key_map.lookup(names.patient).key_id
        names = reading.key_map.pseudonyms(names)
    rows: list[LabelRow] = []
    if reading.labels is not None:
        identifiers = read_attributes(file, list(ATTRIBUTES.values()))
        rows = reading.labels.find(identifiers, relative, reading.key)
    pictures = frames(
        file,
        reading.rules,
        burnt_in_text=reading.burnt_in_text,
        stills_by_content=reading.stills_by_content,
        device_key=reading.key,
    )
    for pixels, info in pictures:
        entry = Entry(
            key=f"{names.image}/{info.frame:05d}-{info.region}",
            site=reading.site,
            patient=names.patient,
            clip=names.image if info.frames > 1 else None,
            frame=info.frame,
            anatomy=info.anatomy,
            anatomy_rule=info.anatomy_rule,
            region_rule=info.region_rule,
            probe=info.probe,
            key_id=hashed_by,
            device=info.device,
            pixel_spacing_mm=info.pixel_spacing_mm,
            depth_cm=info.depth_cm,
            color_doppler=info.color_doppler,
        )
        entry = with_labels(entry, rows)
        segment = (
            reading.segmentations.find(segmented, info.frame, info.frames, shape)
            if reading.segmentations
            else None
        )
        mask = (
            None
            if segment is None
            else segment[0][info.box[0] : info.box[2], info.box[1] : info.box[3]]
        )
        if segment is not None and mask is not None and mask.any():
            joined = (*entry.label_rows, segmented)
            named = replace(entry, mask_name=segment[1], label_rows=joined)
            yield Record(pixels, named, mask)
        else:
            yield Record(pixels, entry)


def segmentations(dicom: Dicom) -> Segmentations | None:
    """The segmentations of the folder that the settings name."""
    if not dicom.segmentations:
        return None
    return read_segmentations(Path(dicom.segmentations), dicom.structure, secret_key())


def label_table(dicom: Dicom) -> LabelTable | None:
    """The labels of the table and the reports that the settings name."""
    tables = []
    if dicom.labels:
        tables.append(read_label_table(Path(dicom.labels), secret_key()))
    if dicom.reports:
        tables.append(read_reports(Path(dicom.reports), secret_key()))
    return merge_tables(tables) if tables else None


SOURCE = Source(
    name="dicom-folder",
    title=("A hospital's drop of DICOM files: any tree of folders, whatever the files are called."),
    read=lambda root, options, dicom: read(
        root, dicom, options.site or "hospital", label_table(dicom)
    ),
    options=("site",),
    published=False,
    reads_dicom=True,
    licence="Property of the hospital; not for redistribution",
    citation="",
    obtain=("Your own: an export of the hospital's archive or scanner, in any folders"),
    layout=(
        "Every file below the root is an input; DICOM is recognised by its mark, not by its name."
    ),
    keys=(
        "<keyed hash of the SOP instance UID>/<frame>-<region>; a file whose UID was "
        "accepted before is refused, so that overlapping drops are safe."
    ),
    coding=(
        "One image for each scan region of each frame; grey, or RGB where it shows colour "
        "Doppler. No labels."
    ),
    patient=(
        "Keyed hash of site, issuer and patient id; without an id, of the study "
        '("study-..."). Clip: a multi-frame file.'
    ),
    split="No official split.",
    refuses=(
        "What is not ultrasound DICOM or cannot be decoded; a file without SOP instance "
        "UID, or without both patient and study; a still without a valid region tag (a crop "
        "by guess could keep a burnt-in name); scans under 64 pixels; a file with text "
        "burnt into a scan, unless text is masked. Quarantine names files by keyed hashes "
        "of their paths."
    ),
)
