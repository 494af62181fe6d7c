"""Records of the frames of a clip, and of files that are a picture or a clip."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from arl.corpus.record import Entry, Mask, Pixels, Record
from arl.ingest.folders import PICTURES
from arl.ingest.pictures import read_picture
from arl.ingest.video import grey_unless_coloured, read_frames

VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")


def clip_records(
    frames: Iterable[tuple[int, Pixels]],
    clip: Entry,
    *,
    masks: Mapping[int, Mask] | None = None,
    mask_name: str = "",
    official: Collection[int] = (),
) -> Iterator[Record]:
    """Records of the frames of a clip; frame k has the key <clip>/<k, five digits>.

    Args:
        frames: 0-based numbers and pictures.
        clip: the entry of the whole clip.
        masks: masks of some frames, by their 0-based numbers.
        mask_name: the structure that the masks show.
        official: numbers of frames that the dataset marks, e.g. end-diastole.
    """
    for number, image in frames:
        mask = (masks or {}).get(number)
        name = mask_name if mask is not None else None
        entry = replace(
            clip,
            key=f"{clip.key}/{number:05d}",
            clip=clip.key,
            frame=number,
            mask_name=name,
            official=number in official,
        )
        yield Record(image, entry, mask)


def media_records(file: Path, entry: Entry) -> Iterator[Record]:
    """A record of a picture, or of every frame of a video.

    Images are grey unless more than 2 % of their pixels are coloured.

    Raises:
        Refused: the file cannot be read.
    """
    if is_video(file):
        yield from clip_records(enumerate(map(grey_unless_coloured, read_frames(file))), entry)
    else:
        yield Record(grey_unless_coloured(read_picture(file)), entry)


def is_video(file: Path) -> bool:
    """Whether the suffix of a file is that of a video."""
    return file.suffix.lower() in VIDEOS


def is_media(file: Path) -> bool:
    """Whether the suffix of a file is that of a picture or a video."""
    return file.suffix.lower() in (*PICTURES, *VIDEOS)
