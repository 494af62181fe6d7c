"""POCUS: lung ultrasound of COVID-19, pneumonia and healthy lungs."""

import re
from functools import partial
from pathlib import Path

from arl.corpus.record import Entry, Input, refusal
from arl.ingest.clips import is_media, media_records
from arl.ingest.folders import child, files_below, search
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv

_PARTS = ("pocus_images", "pocus_videos")
_LABEL_OF = {"cov": "covid", "pne": "pneumonia", "vir": "viral", "reg": "normal"}
_WORDS = {
    "covid": "cov",
    "bacterial": "pne",
    "viral": "vir",
    "regular": "reg",
    "healthy": "reg",
    # of `Label`.
}
_NO_PATIENT = ("", "nd", "n/a", "na", "none", "unknown", "-", "?")
_MADE_OF = re.compile(
    r"\.[a-z0-9]{3,4}_frame\d+$"
    # a picture that was cut from a video: name.gif_frame12.
)
_LAST_NUMBER = re.compile(r"[\W_]*(clip|vid|video|mov|image|img|example|day|v)?[\W_]*\d+[\W_]*$")
_Table = dict[
    str, tuple[str, str]
    # File name, compared as `_plain` has it -> patient, three letters of the label.
]


def read(root: Path) -> list[Input]:
    """One input for each file of pocus_images and pocus_videos.

    Raises:
        FileNotFoundError: there is neither folder.
        ValueError: dataset_metadata.csv is there, but is no CSV or lacks a column.
    """
    home = search(root, lambda folder: any(child(folder, part) for part in _PARTS))
    if home is None:
        raise FileNotFoundError(f"neither {root} nor a folder in it holds {' or '.join(_PARTS)}")
    table = child(home, "dataset_metadata.csv")
    listed = {} if table is None else _read_table(table)
    folders = [folder for part in _PARTS if (folder := child(home, part))]
    return [_input(home, file, listed) for folder in folders for file in files_below(folder)]


def _read_table(table: Path) -> _Table:
    rows = read_csv(table, ["Filename", "Label", "Patient ID / Name"])
    listed: _Table = {}
    for name, label, patient in rows.to_numpy():
        letters = next(
            (short for word, short in _WORDS.items() if label.lower().startswith(word)), ""
        )
        listed.setdefault(
            _plain(name),
            ("" if patient.strip().lower() in _NO_PATIENT else patient.strip(), letters),
        )
    return listed


def _stem(name: str) -> str:
    """A file's name without its ending, and without the number of a frame that was cut out."""
    stem = Path(name).stem if is_media(Path(name)) else name
    return _MADE_OF.sub("", stem.strip().lower())


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", _stem(name))


def _input(home: Path, file: Path, listed: _Table) -> Input:
    path = file.relative_to(home)
    name, letters = path.as_posix(), file.name[:3].lower()
    if not is_media(file):
        return refusal(name, "it is neither a picture nor a video")
    patient, named = listed.get(_plain(file.name), ("", ""))
    unlabelled = any(part.lower().startswith("unlabel") for part in path.parts[:-1])
    if not unlabelled and letters not in _LABEL_OF:
        return refusal(name, f"its name begins with none of {', '.join(_LABEL_OF)}")
    if not unlabelled and named and named != letters:
        return refusal(
            name, f"its name says {_LABEL_OF[letters]}, dataset_metadata.csv {_LABEL_OF[named]}"
        )
    entry = Entry(
        key=name,
        patient=f"id-{patient}" if patient else f"case-{_case(file.name)}",
        anatomy="lung",
        probe=next(
            (probe for part in path.parts if (probe := part.lower()) in ("convex", "linear")),
            "unknown",
        ),
        label=None if unlabelled else _LABEL_OF[letters],
    )
    return Input(name, partial(media_records, file, entry))


def _case(name: str) -> str:
    """The common part of a case's names: a_case3 of a_case3_clip5.mp4."""
    stem = re.sub(
        r"[\W_]*(trimmed|crop|cropped|original)$", "", re.sub(r"[\W_]*crop$", "", _stem(name))
    )
    case = _LAST_NUMBER.sub("", stem)
    return case if len(case) > 4 else stem


SOURCE = Source(
    name="pocus",
    title=(
        "POCUS: lung ultrasound of COVID-19, pneumonia and healthy lungs (Born et al., "
        "2021), the repository's data folder."
    ),
    read=without_options(read),
    licence=("By item, see dataset_metadata.csv of the download; mostly CC BY-NC 4.0"),
    citation=(
        "J. Born, N. Wiedemann, M. Cossio et al., Accelerating detection of lung "
        "pathologies with explainable ultrasound image analysis, Applied Sciences 11(2), "
        "2021, doi:10.3390/app11020672"
    ),
    obtain=(
        "https://github.com/jannisborn/covid19_ultrasound, folder data; Butterfly's videos "
        "by its own script"
    ),
    layout=(
        "<root>/pocus_images/**, pocus_videos/** (convex and linear, in either case, and "
        "folders of classes below), dataset_metadata.csv. GIF, MP4, MOV, AVI, MPEG. Other "
        "folders of the download (cross_validation, image_dataset, data_with_artifacts) "
        "repeat these or are set aside by its authors, and are not read."
    ),
    keys="The path below the root; frames of a video <path>/<frame>",
    coding=(
        "Label by the first three letters of the name: cov = covid, pne = pneumonia "
        '(bacterial), vir = viral, reg = normal; names below a folder "unlabel..." have '
        "none. Grey unless more than 2 % of the pixels are coloured."
    ),
    patient=(
        '"Patient ID / Name" of dataset_metadata.csv, found by file name without its '
        'ending; without one, the name up to its last number ("case-..."), which rather '
        "joins two patients than divides one. Clip: the video."
    ),
    split=(
        "No official split. by patient: the repository's cross_val.json divides cases, and "
        "is not used."
    ),
    refuses=(
        "A torn or damaged file, a name that begins with none of the four, a name whose "
        "letters contradict `Label` of dataset_metadata.csv, files that are neither picture "
        "nor video."
    ),
)
