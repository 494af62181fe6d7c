"""EchoNet-LVH: parasternal long-axis echocardiography videos with measurements."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from arl.corpus.pixels import as_grey
from arl.corpus.record import Entry, Input, Record, Refused, refusal
from arl.corpus.splits import DEFAULT, split_named
from arl.ingest.clips import clip_records
from arl.ingest.folders import entries, files_below, member, search
from arl.ingest.source import Source, without_options
from arl.ingest.tables import read_csv
from arl.ingest.video import read_frames

_TABLE = "MeasurementsList.csv"


def read(root: Path) -> list[Input]:
    """One input for each video of MeasurementsList.csv, and for each file that it does not list.

    Raises:
        FileNotFoundError: there is no folder with MeasurementsList.csv and a batch.
        ValueError: MeasurementsList.csv lacks a column.
    """
    home = search(root, _is_home)
    if home is None:
        raise FileNotFoundError(
            f"neither {root} nor a folder in it holds {_TABLE} and Batch1, Batch2, ..."
        )
    table = read_csv(member(home, _TABLE), ["HashedFileName", "Frame", "split"])
    stems = table["HashedFileName"].str.replace(r"\.avi$", "", regex=True, case=False)
    files = [file for batch in _batches(home) for file in files_below(batch)]
    # Of two videos with one name, the first batch's is read.
    videos = {file.name.lower(): file for file in reversed(files)}
    listed = []
    for stem, rows in table.groupby(stems, sort=False):
        video = videos.get(f"{stem}.avi".lower(), home / f"{stem}.avi")
        result = partial(
            _records, video, str(stem), sorted(set(rows["split"])), sorted(set(rows["Frame"]))
        )
        listed.append(Input(f"{_TABLE} {stem}", result))
    names_listed = {f"{stem}.avi".lower() for stem in stems}
    strays = [
        file
        for file in files
        if file.name.lower() not in names_listed or videos[file.name.lower()] != file
    ]
    second = "another batch holds a video of this name"
    return listed + [
        refusal(
            file.relative_to(home).as_posix(),
            second if file.name.lower() in names_listed else f"{_TABLE} does not list it",
        )
        for file in strays
    ]


def _is_home(folder: Path) -> bool:
    return any(path.name.lower() == _TABLE.lower() for path in entries(folder)) and bool(
        _batches(folder)
    )


def _batches(folder: Path) -> list[Path]:
    return [
        path for path in entries(folder) if path.is_dir() and path.name.lower().startswith("batch")
    ]


def _records(video: Path, stem: str, split: list[str], measured: list[str]) -> Iterator[Record]:
    if len(split) != 1:
        raise Refused(f"its rows are in several splits: {', '.join(split)}")
    named = split_named(split[0])
    if named is None:
        raise Refused(f"split {split[0]!r} is not train, val or test")
    splits = dict.fromkeys(("official", DEFAULT), named)
    clip = Entry(key=stem, anatomy="cardiac", probe="sector", label="PLAX", splits=splits)
    # `Frame` counts from 1.
    official = {
        int(float(frame)) - 1 for frame in measured if frame.replace(".", "", 1).isdecimal()
    }
    yield from clip_records(enumerate(map(as_grey, read_frames(video))), clip, official=official)


SOURCE = Source(
    name="echonet-lvh",
    title=(
        "EchoNet-LVH: parasternal long-axis echocardiography videos with measurements "
        "(Duffy et al., 2022)."
    ),
    read=without_options(read),
    licence=(
        "Stanford University research use agreement: non-commercial research, no redistribution"
    ),
    citation=(
        "G. Duffy, P. P. Cheng, N. Yuan et al., High-throughput precision phenotyping of "
        "left ventricular hypertrophy with cardiovascular deep learning, JAMA Cardiology "
        "7(4), 2022, doi:10.1001/jamacardio.2021.6059"
    ),
    obtain=("https://echonet.github.io/lvh/: register with Stanford AIMI and accept the agreement"),
    layout=(
        "<root>/MeasurementsList.csv, Batch1 ... Batch4/<HashedFileName>.avi. Columns "
        "HashedFileName, Frame, split and others, one row a measurement; a batch that was "
        "not downloaded is not missed as long as its videos are not listed."
    ),
    keys="<HashedFileName>/<frame>, 0-based as it decodes.",
    coding=(
        "Grey; label = the view, PLAX. Measured frames (`Frame` is 1-based) are official "
        "and never thinned; the measurements themselves have no column in the manifest."
    ),
    patient="Not published. Clip: the video.",
    split="Official: `split` (train, val, test); it is the default.",
    refuses=(
        "A missing, torn or damaged video, a video with several splits or an unknown one, "
        "files of the batches that MeasurementsList.csv does not list."
    ),
)
