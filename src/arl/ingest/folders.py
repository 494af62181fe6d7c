"""Official layouts as people unpack them: a folder too high or too low, in another case, among a computer's litter."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from arl.corpus.record import Input, refusal

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_LITTER = (
    "thumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
)  # what Windows, macOS and NAS boxes leave behind
_DEPTH = 4  # folders between the root that was given and the layout


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 2 before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)
    ]


def entries(folder: Path) -> list[Path]:
    """What a folder holds, in natural order, without hidden files and litter.

    Raises:
        FileNotFoundError: it is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    kept = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _LITTER
    ]
    return sorted(kept, key=lambda path: (natural(path.name), path.name))


def files_below(folder: Path) -> list[Path]:
    """Every file of a tree, without litter; a file is its own tree."""
    if not folder.is_dir():
        return [folder]
    return [file for path in entries(folder) for file in files_below(path)]


def child(folder: Path, *names: str) -> Path | None:
    """The entry that has one of these names, whatever its case; the first name wins."""
    present = {path.name.lower(): path for path in entries(folder)}
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def search(root: Path, holds: Callable[[Path], bool]) -> Path | None:
    """The folder for which `holds` is true: the root, or the highest one that is at most four folders below it.

    Raises:
        FileNotFoundError: the root is no folder.
        ValueError: several folders of one level do.
    """
    level = [root]
    for _ in range(_DEPTH + 1):
        found = [folder for folder in level if holds(folder)]
        if len(found) > 1:
            raise ValueError(
                f"{root} holds the layout more than once, give one as the root: {found[0]}, {found[1]}"
            )
        if found:
            return found[0]
        level = [path for folder in level for path in entries(folder) if path.is_dir()]
    return None


def locate(root: Path, *names: str) -> Path:
    """The folder at or below the root that holds all of these names.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    found = search(root, lambda folder: all(child(folder, name) for name in names))
    if found is None:
        wanted = f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]
        raise FileNotFoundError(
            f"neither {root} nor a folder in it holds {wanted}: is it the unpacked official download?"
        )
    return found


def member(folder: Path, *names: str) -> Path:
    """`child` where the layout needs it.

    Raises:
        FileNotFoundError: there is none.
    """
    found = child(folder, *names)
    if found is None:
        raise FileNotFoundError(
            f"{folder / names[0]} does not exist: is the root the unpacked official download?"
        )
    return found


def pictures(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The pictures of a folder by their stems, and every other file in it.

    The others are no pictures, are in folders of their own, or have the stem of a picture before
    them.
    """
    named: dict[str, Path] = {}
    for path in entries(folder):
        if path.is_file() and path.suffix.lower() in PICTURES:
            named.setdefault(path.stem, path)
    taken = set(named.values())
    return named, [file for file in files_below(folder) if file not in taken]


def refuse_all(
    root: Path, files: Iterable[Path], reason: str = "it is no picture of the set"
) -> list[Input]:
    """An input for each file, refused for one reason."""
    return [refusal(file.relative_to(root).as_posix(), reason) for file in files]
