"""A set of one's own, sorted into folders: the folder's name is the class."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from arl.corpus.anatomy import anatomy_index
from arl.corpus.manifest import PROBES
from arl.corpus.record import Entry, Input, refusal
from arl.corpus.splits import named_splits, split_named
from arl.ingest.clips import is_media, media_records
from arl.ingest.folders import entries, files_below
from arl.ingest.source import Source


def read(
    root: Path,
    anatomy: str | None = None,
    probe: str = "unknown",
    device: str | None = None,
    site: str | None = None,
) -> list[Input]:
    """One input for each file below the root.

    Raises:
        FileNotFoundError: the root is no folder.
        ValueError: no or an unknown anatomy, an unknown probe, folders that are half split, a
            divided patient.
    """
    check_options(anatomy, probe)
    if anatomy is None:
        raise ValueError(
            f"state what the pictures of {root} show: --anatomy breast, "
            "or another anatomy of the vocabulary"
        )
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    common = Entry(
        key="", anatomy=anatomy, anatomy_rule="option", probe=probe, device=device, site=site
    )
    placed = _placed(root)
    splits = _splits(root, placed)
    return [_input(root, file, position, common, splits) for file, position in placed.items()]


def check_options(anatomy: str | None, probe: str) -> None:
    """Raise a ValueError for a word that is not in the manifest's vocabulary."""
    if anatomy is not None:
        anatomy_index(anatomy)
    if probe not in PROBES:
        raise ValueError(f"probe {probe!r} is not one of {', '.join(PROBES)}")


@dataclass(frozen=True)
class _Position:
    """What the folders of a file say."""

    split: str | None
    label: str
    patient: str | None


def _placed(root: Path) -> dict[Path, _Position | str]:
    """Every file with what its folders say, or why it cannot be accepted."""
    folders = [path for path in entries(root) if path.is_dir()]
    # Beside split folders another folder is ambiguous: a class, or a split by another name.
    splits = [folder for folder in folders if split_named(folder.name)]
    if splits and len(splits) < len(folders):
        other = next(folder for folder in folders if folder not in splits)
        raise ValueError(
            f"{root} holds splits, as {splits[0].name}, and {other.name}, which is none"
        )
    return {file: _position(file.relative_to(root), bool(splits)) for file in files_below(root)}


def _position(file: Path, is_split: bool) -> _Position | str:
    if not is_media(file):
        return "it is neither a picture nor a video"
    split = split_named(file.parts[0]) if is_split and len(file.parts) > 1 else None
    folders = file.parts[1:-1] if split else file.parts[:-1]
    if not folders:
        return "it lies in no folder of a class"
    if len(folders) > 2:
        return "it lies deeper than <class>/<patient>"
    return _Position(split, folders[0], folders[1] if len(folders) == 2 else None)


def _splits(root: Path, placed: Mapping[Path, _Position | str]) -> dict[str, dict[str, str]]:
    """Key -> protocol -> split."""
    stated = {}
    for file, position in placed.items():
        if isinstance(position, _Position) and position.split:
            key = file.relative_to(root).as_posix()
            stated[key] = position.split, position.patient or key
    try:
        return named_splits(stated)
    except ValueError as error:
        raise ValueError(f"{root}: {error}") from error


def _input(
    root: Path,
    file: Path,
    position: _Position | str,
    common: Entry,
    splits: dict[str, dict[str, str]],
) -> Input:
    key = file.relative_to(root).as_posix()
    if isinstance(position, str):
        return refusal(key, position)
    entry = replace(
        common, key=key, patient=position.patient, label=position.label, splits=splits.get(key, {})
    )
    return Input(key, partial(media_records, file, entry), position.label)


SOURCE = Source(
    name="folder",
    title=("A set of one's own, sorted into folders: the folder's name is the class."),
    read=lambda root, options, dicom: read(
        root,
        anatomy=options.anatomy,
        probe=options.probe or "unknown",
        device=options.device,
        site=options.site,
    ),
    options=("anatomy", "probe", "device", "site"),
    published=False,
    licence="The owner's",
    citation="",
    obtain=(
        "Your own pictures: one folder a class, `arl ingest folder --name my-set --anatomy "
        "thyroid --root ...`"
    ),
    layout=(
        "<root>/<class>/**.{png,jpg,tif,..,avi,mp4,gif,...}, or "
        "<root>/{train,val,test}/<class>/**. One folder level below a class, if there is "
        "one, is the patient: <class>/<patient>/<file>"
    ),
    keys="The path below the root; frames of a video <path>/<frame>",
    coding=(
        "label = the class, as the folder is called and `conf/task` names it; anatomy, "
        "probe and device of all images are options of the command. Grey unless more than 2 "
        "% of the pixels are coloured."
    ),
    patient=(
        "The folder below the class; without one, none, and a split by patient cannot be "
        "claimed. Names of patients are kept as they are: a hospital's export with "
        "identifiers is for `picture-table`. Clip: a video."
    ),
    split=(
        "The folders train, val (valid, validation) and test, if there are any; without "
        "val, 15 % of the training patients (else clips, images) are it. Without such "
        "folders none."
    ),
    refuses=(
        "Damaged files, files that are neither picture nor video, files in no class or "
        "deeper than a patient. Folders of which only some are called train, val or test, "
        "and a patient in several of them, are errors of the whole."
    ),
)
