"""Search for a dataset's official layout in the folder that the user unpacked.

Users name a folder above or below the layout, file systems change the case of names, and operating
systems add files of their own.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from arl.corpus.record import Input, refusal

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# files that Windows, macOS and NAS devices create
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
# Folders between the root and the layout.
_MAX_DEPTH = 4


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 2 before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)
    ]


def entries(folder: Path) -> list[Path]:
    """The entries of a folder in natural order, without hidden files and system files.

    Raises:
        FileNotFoundError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    kept = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _SYSTEM_FILES
    ]
    return sorted(kept, key=lambda path: (natural(path.name), path.name))


def files_below(folder: Path) -> list[Path]:
    """Every file of a tree, without hidden files and system files; a file is its own tree."""
    if not folder.is_dir():
        return [folder]
    return [file for path in entries(folder) for file in files_below(path)]


def child(folder: Path, *names: str) -> Path | None:
    """The entry with one of these names, in any case; earlier names take precedence."""
    present = {path.name.lower(): path for path in entries(folder)}
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def search(root: Path, holds: Callable[[Path], bool]) -> Path | None:
    """The highest folder for which `holds` is true, from the root to four levels below it.

    Raises:
        FileNotFoundError: the root is not a folder.
        ValueError: `holds` is true for several folders of one level.
    """
    level = [root]
    for _ in range(_MAX_DEPTH + 1):
        matches = [folder for folder in level if holds(folder)]
        if len(matches) > 1:
            raise ValueError(
                f"{root} holds the layout more than once: choose one as the root, "
                f"{matches[0]} or {matches[1]}"
            )
        if matches:
            return matches[0]
        level = [path for folder in level for path in entries(folder) if path.is_dir()]
    return None


def locate(root: Path, *names: str) -> Path:
    """The folder at or below the root that has entries of all these names.

    Raises:
        FileNotFoundError: no such folder exists.
        ValueError: several such folders exist.
    """
    folder = search(root, lambda folder: all(child(folder, name) for name in names))
    if folder is None:
        expected = f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]
        raise FileNotFoundError(
            f"neither {root} nor a folder in it holds {expected}: "
            "is it the unpacked official download?"
        )
    return folder


def member(folder: Path, *names: str) -> Path:
    """Like `child`, for an entry that the layout requires.

    Raises:
        FileNotFoundError: the entry does not exist.
    """
    entry = child(folder, *names)
    if entry is None:
        raise FileNotFoundError(
            f"{folder / names[0]} does not exist: is the root the unpacked official download?"
        )
    return entry


def pictures(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The pictures of a folder by their stems, and all other files in it.

    A file is among the others if it is not a picture, lies in a subfolder, or repeats the stem of
    an earlier picture.
    """
    named: dict[str, Path] = {}
    for path in entries(folder):
        if path.is_file() and path.suffix.lower() in PICTURES:
            named.setdefault(path.stem, path)
    used = set(named.values())
    return named, [file for file in files_below(folder) if file not in used]


def refuse_all(
    root: Path, files: Iterable[Path], reason: str = "it is not a picture of the dataset"
) -> list[Input]:
    """An input for each file, refused for one reason."""
    return [refusal(file.relative_to(root).as_posix(), reason) for file in files]
