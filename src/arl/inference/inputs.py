"""Images of a file for prediction: DICOM, a picture or a video, recognised by content."""

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

FRAMES = 16  # of a clip, evenly spaced
_NO_RULES = AnatomyRules([], [], {})
_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class InputImage:
    """One image: a whole file, or a frame and scan region of it."""

    file: str  # name without folders
    frame: int
    region: int
    device: str | None
    canvas: Pixels  # uint8 (S, S), filled by the image
    original_shape: tuple[int, int]  # height and width before scaling, pixels


def read_inputs(
    file: Path, size: int, anatomy: str, rules: AnatomyRules = _NO_RULES
) -> list[InputImage]:
    """Up to `FRAMES` frames of every scan region of a file, stretched to `size`.

    Args:
        file: DICOM, a picture or a video.
        size: side of a canvas, pixels.
        anatomy: the anatomy of the model.
        rules: map a DICOM header to an anatomy; without rules the header is not checked.

    Raises:
        Refused: the file cannot be read, has no scan region, or its DICOM header names another
            anatomy.
    """
    if not file.is_file():
        raise Refused(f"{file.name} is missing")
    if is_dicom(file):
        return _evenly_spaced(list(_dicom_images(file, size, anatomy, rules)))
    if file.suffix.lower() in _PICTURES:
        return [_input_image(file, 0, 0, None, read_picture(file), size)]
    pictures = map(grey_unless_coloured, read_frames(file))
    return _evenly_spaced(
        [
            _input_image(file, number, 0, None, picture, size)
            for number, picture in enumerate(pictures)
        ]
    )


def _dicom_images(file: Path, size: int, anatomy: str, rules: AnatomyRules) -> Iterator[InputImage]:
    # The page of a prediction shows the image: text is masked, and stills need region tags, because
    # a region found by content may hold text.
    for pixels, info in frames(file, rules, burnt_in_text=MASK, stills_by_content=False):
        if info.anatomy not in (anatomy, OTHER):
            raise Refused(
                f"{file.name}: its header says {info.anatomy}, the model is for {anatomy}"
            )
        yield _input_image(file, info.frame, info.region, info.device, pixels, size)


def _input_image(
    file: Path, frame: int, region: int, device: str | None, pixels: Pixels, size: int
) -> InputImage:
    grey = as_grey(pixels)
    return InputImage(
        file.name, frame, region, device, stretch(grey, size)[0], (grey.shape[0], grey.shape[1])
    )


def _evenly_spaced(images: list[InputImage]) -> list[InputImage]:
    """At most `FRAMES` frames, the first and the last among them, with all their regions."""
    numbers = sorted({image.frame for image in images})
    positions = np.linspace(0, len(numbers) - 1, min(FRAMES, len(numbers)))
    selected = {numbers[round(position)] for position in positions}
    return [image for image in images if image.frame in selected]


def as_batch(images: list[InputImage], anatomy: str) -> Batch:
    """The images as a batch without labels."""
    count = len(images)
    return Batch(
        image=torch.from_numpy(np.stack([image.canvas for image in images])).unsqueeze(1),
        extent=torch.tensor([image.canvas.shape for image in images]),
        anatomy=torch.full((count,), anatomy_index(anatomy)),
        label=torch.full((count,), -1),
        mask=None,
        index=torch.arange(count),
    )
