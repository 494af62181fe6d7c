"""The frames of a clip as records, and files that are either a picture or a clip."""

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
    """Frame k of `clip`, whose key is the clip's, gets the key <clip>/<k, five digits>.

    Args:
        frames: their 0-based numbers, and the pictures; `enumerate` where there are all of them.
        masks: of some frames, by their 0-based numbers; `mask_name` says what they show.
        official: numbers of frames that the dataset singles out.
    """
    for number, image in frames:
        mask = (masks or {}).get(number)
        name = mask_name if mask is not None else None
        key, singled = f"{clip.key}/{number:05d}", number in official
        entry = replace(
            clip, key=key, clip=clip.key, frame=number, mask_name=name, official=singled
        )
        yield Record(image, entry, mask)


def media_records(file: Path, entry: Entry) -> Iterator[Record]:
    """A picture under `entry`, or every frame of a video; grey unless more than 2 % of the pixels are coloured.

    Raises:
        Refused: the file cannot be read.
    """
    if is_video(file):
        yield from clip_records(enumerate(map(grey_unless_coloured, read_frames(file))), entry)
    else:
        yield Record(grey_unless_coloured(read_picture(file)), entry)


def is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEOS


def is_media(file: Path) -> bool:
    """Whether a file's name says that it is a picture or a video."""
    return file.suffix.lower() in (*PICTURES, *VIDEOS)
