"""Images of a file for prediction: DICOM, a picture or a video, recognised by content."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from arl.corpus.anatomy import OTHER, anatomy_index
from arl.corpus.limits import is_blank
from arl.corpus.pixels import as_grey, stretch
from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom.burnt_in_text import MASK, mask, text_boxes
from arl.ingest.dicom.frames import frames
from arl.ingest.dicom.overlays import find_overlays
from arl.ingest.dicom.pixel_data import check_regular, is_dicom
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.pictures import read_picture
from arl.ingest.video import grey_unless_coloured, read_frames
from arl.ingest.workers import UNEXPECTED, WORKER_MEMORY, Limits, isolated
from arl.loading.loader import Batch

FILE_SECONDS = 120  # of processor time for one file
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

    @classmethod
    def from_picture(
        cls,
        picture: Pixels,
        size: int,
        file: str,
        frame: int = 0,
        region: int = 0,
        device: str | None = None,
    ) -> "InputImage":
        """The picture, grey (H, W) or RGB (H, W, 3), stretched to a canvas of side `size`."""
        grey = as_grey(picture)
        canvas, shape = stretch(grey, size)[0], (grey.shape[0], grey.shape[1])
        return cls(file, frame, region, device, canvas, shape)


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
        Refused: the file cannot be read, is blank, has no scan region, shows text that cannot be
            masked, or its DICOM header names another anatomy.
    """
    try:
        images = _read(file, size, anatomy, rules)
    except OSError as error:
        raise Refused(f"it cannot be read ({type(error).__name__})") from None
    if not images:
        raise Refused("it is blank: it shows nothing that a model could judge")
    return images


def read_all_inputs(
    files: Sequence[Path], size: int, anatomy: str, rules: AnatomyRules = _NO_RULES
) -> Iterator[list[InputImage] | str]:
    """The images of each file, or the reason why the file is refused; arguments as `read_inputs`.

    A worker process with the limits of ingest reads the files: one that crashes its decoder, hangs
    or takes too much memory is refused, and the others are read.
    """
    read = partial(_images_or_reason, size=size, anatomy=anatomy, rules=rules)
    return isolated(read, files, 1, Limits(FILE_SECONDS, memory=WORKER_MEMORY))


def _images_or_reason(
    file: Path, size: int, anatomy: str, rules: AnatomyRules
) -> list[InputImage] | str:
    try:
        return read_inputs(file, size, anatomy, rules)
    except Refused as reason:
        return str(reason)
    except UNEXPECTED as error:
        return f"reading it failed unexpectedly ({type(error).__name__})"


def _read(file: Path, size: int, anatomy: str, rules: AnatomyRules) -> list[InputImage]:
    # FIFOs and devices first: to open one waits for ever.
    check_regular(file)
    if is_dicom(file):
        images = []
        # The page of a prediction shows the image: text is masked, and the region of a still needs
        # tags or a clear outline, because a region found by content may hold text.
        for picture, info in frames(file, rules, burnt_in_text=MASK):
            if info.anatomy not in (anatomy, OTHER):
                raise Refused(f"its header says {info.anatomy}, the model is for {anatomy}")
            images.append(
                InputImage.from_picture(
                    picture, size, file.name, info.frame, info.region, info.device
                )
            )
        images = _evenly_spaced(images)
    elif file.suffix.lower() in _PICTURES:
        images = [InputImage.from_picture(_without_text(read_picture(file)), size, file.name)]
    else:
        pictures = map(grey_unless_coloured, read_frames(file))
        images = [
            InputImage.from_picture(_without_text(picture), size, file.name, number)
            for number, picture in _evenly_spaced_frames(pictures)
        ]
    # A model gives a blank picture a class as it gives one to any other.
    return [image for image in images if not is_blank(image.canvas.mean(), image.canvas.std())]


def _without_text(picture: Pixels) -> Pixels:
    """The picture with its texts and codes black.

    Raises:
        Refused: text is still visible after masking.
    """
    boxes = text_boxes(picture, find_overlays(picture))
    if not boxes:
        return picture
    # Text behind other text shows only when the first is masked, so the result is searched again.
    masked = mask(picture, boxes)
    if text_boxes(masked, find_overlays(masked)):
        raise Refused("text is burnt into its picture and cannot be masked")
    return masked


def _evenly_spaced(images: list[InputImage]) -> list[InputImage]:
    """At most `FRAMES` frames, the first and the last among them, with all their regions."""
    numbers = sorted({image.frame for image in images})
    positions = np.linspace(0, len(numbers) - 1, min(FRAMES, len(numbers)))
    selected = {numbers[round(position)] for position in positions}
    return [image for image in images if image.frame in selected]


def _evenly_spaced_frames(pictures: Iterable[Pixels]) -> list[tuple[int, Pixels]]:
    """At most `FRAMES` frames of a video, with their numbers; memory holds up to twice as many."""
    kept: list[tuple[int, Pixels]] = []
    step = 1
    for number, picture in enumerate(pictures):
        if number % step == 0:
            kept.append((number, picture))
        # The length of a video is known only at its end.
        if len(kept) > 2 * FRAMES:
            kept, step = kept[::2], 2 * step
    positions = np.linspace(0, len(kept) - 1, min(FRAMES, len(kept)))
    return [kept[round(position)] for position in positions]


def as_batch(images: list[InputImage], anatomy: str) -> Batch:
    """The images as a batch without labels."""
    count = len(images)
    return Batch(
        image=torch.from_numpy(np.stack([image.canvas for image in images])).unsqueeze(1),
        extent=torch.tensor([image.canvas.shape for image in images]),
        anatomy=torch.full((count,), anatomy_index(anatomy)),
        target=torch.full((count,), -1),
        mask=None,
        index=torch.arange(count),
    )
