"""Pictures of a file that somebody hands to a model: DICOM, a picture or a video, told by content."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from arl.corpus.anatomy import OTHER, anatomy_index
from arl.corpus.pixels import as_grey, stretch
from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom.burnt_in_text import MASK
from arl.ingest.dicom.frames import frames, is_dicom
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.pictures import read_picture
from arl.ingest.video import grey_unless_coloured, read_frames
from arl.loading.loader import Batch

FRAMES = 16  # of a clip, evenly spread
_NO_RULES = AnatomyRules([], [], {})
_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class Given:
    """One picture: a whole file, or a frame and scan region of it."""

    file: str  # its name, without folders
    frame: int
    region: int
    device: str | None
    canvas: Pixels  # uint8 (S, S), filled by the picture
    form: tuple[int, int]  # the picture's own height and width, pixels


def read_given(file: Path, size: int, anatomy: str, rules: AnatomyRules = _NO_RULES) -> list[Given]:
    """Up to `FRAMES` frames of every scan region, stretched to `size`; `anatomy` is what the model was made for.

    `rules` tell the anatomy that a DICOM header speaks of; without any, headers are not asked.

    Raises:
        Refused: the file cannot be read, has no scan region, or its DICOM header tells of another
            anatomy.
    """
    if not file.is_file():
        raise Refused(f"{file.name} is missing")
    if is_dicom(file):
        return _spread(list(_dicom(file, size, anatomy, rules)))
    if file.suffix.lower() in _PICTURES:
        return [_given(file, 0, 0, None, read_picture(file), size)]
    pictures = (grey_unless_coloured(frame) for frame in read_frames(file))
    return _spread(
        [_given(file, number, 0, None, picture, size) for number, picture in enumerate(pictures)]
    )


def _dicom(file: Path, size: int, anatomy: str, rules: AnatomyRules) -> Iterator[Given]:
    # a burnt-in name would end in a picture on a page: text is masked, and no crop is guessed that
    # could hold some
    for picture, info in frames(file, rules, burnt_in_text=MASK, stills_by_content=False):
        if info.anatomy not in (anatomy, OTHER):
            raise Refused(
                f"{file.name}: its header says {info.anatomy}, the model is for {anatomy}"
            )
        yield _given(file, info.frame, info.region, info.device, picture, size)


def _given(
    file: Path, frame: int, region: int, device: str | None, picture: Pixels, size: int
) -> Given:
    grey = as_grey(picture)
    return Given(
        file.name, frame, region, device, stretch(grey, size)[0], (grey.shape[0], grey.shape[1])
    )


def _spread(pictures: list[Given]) -> list[Given]:
    """At most `FRAMES` frames, the first and the last among them, with all their regions."""
    numbers = sorted({picture.frame for picture in pictures})
    chosen = {
        numbers[round(at)] for at in np.linspace(0, len(numbers) - 1, min(FRAMES, len(numbers)))
    }
    return [picture for picture in pictures if picture.frame in chosen]


def as_batch(pictures: list[Given], anatomy: str) -> Batch:
    """The pictures as a batch without labels."""
    count = len(pictures)
    return Batch(
        image=torch.from_numpy(np.stack([picture.canvas for picture in pictures])).unsqueeze(1),
        extent=torch.tensor([picture.canvas.shape for picture in pictures]),
        anatomy=torch.full((count,), anatomy_index(anatomy)),
        label=torch.full((count,), -1),
        mask=None,
        index=torch.arange(count),
    )
