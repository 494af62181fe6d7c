"""GBCU: gallbladder ultrasound, normal, benign and malignant (Basu et al., CVPR 2022)."""

from functools import partial
from pathlib import Path

from arl.corpus.record import Entry, Input, Record, Refused
from arl.corpus.splits import DEFAULT, keep_test
from arl.ingest.folders import locate, member, pictures, refuse_all
from arl.ingest.pictures import read_picture
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_lines

_LABELS = {"0": "normal", "1": "benign", "2": "malignant"}
_LISTS = {"train.txt": "train", "test.txt": "test"}


def read(root: Path) -> list[Input]:
    """One input for each line of the lists, and for each file in imgs that they do not name.

    Raises:
        FileNotFoundError: imgs, train.txt or test.txt is missing.
        ValueError: a list is not text, or several folders hold the layout.
    """
    base = locate(root, "imgs", "train.txt", "test.txt")
    images, strays = pictures(member(base, "imgs"))
    lines = [
        (name, number, line) for name in _LISTS for number, line in read_lines(member(base, name))
    ]
    stated: dict[str, set[tuple[str, str]]] = {}
    for name, _, line in lines:
        image, code = _fields(line)
        stated.setdefault(image, set()).add((name, code))
    inputs = [
        Input(
            f"{name}:{number} {line}",
            partial(_records, images.get(_fields(line)[0]), line, stated[_fields(line)[0]]),
        )
        for name, number, line in lines
    ]
    unlisted = (file for stem, file in images.items() if stem not in stated)
    return (
        inputs
        + refuse_all(root, unlisted, "neither train.txt nor test.txt lists it")
        + refuse_all(root, strays)
    )


def _fields(line: str) -> tuple[str, str]:
    """Stem and code of a line."""
    image, _, code = line.partition(",")
    return Path(image.strip()).stem, code.strip()


def _records(file: Path | None, line: str, stated: set[tuple[str, str]]) -> list[Record]:
    stem, code = _fields(line)
    if code not in _LABELS:
        raise Refused(f"code {code!r} is not one of {', '.join(_LABELS)}")
    if len(stated) > 1:
        raise Refused(
            f"the lists give it {len(stated)} codes: "
            f"{', '.join(f'{code} by {name}' for name, code in sorted(stated))}"
        )
    if file is None:
        raise Refused(f"imgs holds nothing named {stem}")
    ((name, _),) = stated
    official = _LISTS[name]
    entry = Entry(
        key=stem,
        anatomy="gallbladder",
        label=_LABELS[code],
        splits={"official": official, DEFAULT: keep_test(official, stem)},
    )
    return [Record(read_picture(file), entry)]


SOURCE = Source(
    name="gbcu",
    title=("GBCU: gallbladder ultrasound, normal, benign and malignant (Basu et al., CVPR 2022)."),
    read=without_options(read),
    licence="Research only, on request; not for redistribution",
    citation=(
        "S. Basu, M. Gupta, P. Rana, P. Gupta, C. Arora, Surpassing the human accuracy: "
        "Detecting gallbladder cancer from USG with curriculum learning, CVPR 2022"
    ),
    obtain="Project page GBCU of IIT Delhi (gbc-iitd); request form",
    layout=(
        '<root>/imgs/im00001.jpg, train.txt and test.txt ("im00001.jpg,0"); the layout may '
        "lie up to four folders below the root (GBCU-Shared)"
    ),
    keys="The picture's stem.",
    coding=(
        "label = 0 normal, 1 benign, 2 malignant. The boxes of bbox_annot.json and "
        "roi_pred.json are not read."
    ),
    patient=(
        "Not published, and clips are not either. A split by patient cannot be claimed, "
        "though the authors say that no patient is in train.txt and in test.txt. 1,255 "
        "images of 218 patients."
    ),
    split=(
        '"official": train.txt and test.txt. "default": the same test, and part of train as '
        "val, drawn by image, so one patient may be in train and in val."
    ),
    refuses=(
        "A missing or damaged image, another code than the three, an image that both lists "
        "name or that has two codes, an image that neither names, other files beside the "
        "images."
    ),
)
