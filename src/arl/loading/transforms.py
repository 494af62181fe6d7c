"""Views for a network: normalised float tensors of a batch of canvases.

The randomness of a training view is a function of (seed, step, position in the global batch) only.
The number of ranks and earlier steps do not change it. A rank's batch is the contiguous slice
rank * B, ..., (rank + 1) * B - 1.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arl.loading.augment import (
    Draws,
    Strength,
    apply_decibels,
    blur_std,
    decibels,
    draw,
    flips,
    frame_boxes,
    inner_boxes,
    step_generator,
)
from arl.loading.loader import Batch
from arl.loading.resample import resample, resample_mask

# Grey levels of breast (BUS-BRA: mean 0.32, std 0.19) and muscle (FALLMUD: mean 0.15, std 0.17)
# together.
MEAN = 0.25
STD = 0.2

# Images per chunk: intermediate tensors of so many stay in the processor's cache.
_CHUNK = 16

FULL = Strength()
MILD = Strength(gain=3.0, slope=0.0, slider=0.0, shadow=0.0, speckle=0.0, blur=0.0)


def normalize(image: Tensor) -> Tensor:
    """Grey levels in [0, 1] to about zero mean and unit variance."""
    return (image - MEAN).div_(STD)


def denormalize(image: Tensor) -> Tensor:
    """Back to grey levels."""
    return image * STD + MEAN


class Views(NamedTuple):
    """Normalised multi-crop views of B images, view-major: view v of image b is row v * B + b."""

    global_crops: Tensor  # (G * B, 1, S, S), G = 2
    local_crops: Tensor  # (L * B, 1, s, s)
    anatomy: Tensor  # long (B,)


class View(NamedTuple):
    """One normalised view of each of B images."""

    image: Tensor  # (B, 1, S, S)
    mask: Tensor | None  # uint8 (B, 1, S, S), moved along with the image


def _grey(canvas: Tensor) -> Tensor:
    if canvas.dtype != torch.uint8 or canvas.ndim != 4 or canvas.shape[1] != 1:
        raise ValueError(
            f"canvases are uint8 (B, 1, S, S), got {canvas.dtype} {tuple(canvas.shape)}"
        )
    return canvas.float().div_(255)


def _augment(
    image: Tensor,
    extent: Tensor,
    draws: Draws,
    box: Tensor,
    flip: Tensor,
    size: int,
    strength: Strength,
) -> Tensor:
    """Normalised views (R, 1, size, size) of grey levels (B, 1, S, S)."""
    crops = resample(image, extent, box, size, flip=flip, blur=blur_std(draws.blur, strength))
    return normalize(
        apply_decibels(crops, decibels(draws, strength, size)) if strength.brightens else crops
    )


def _parts(count: int) -> Iterator[slice]:
    """`count` images, `_CHUNK` at a time."""
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


class MultiCrop:
    """Two global and L local views of each image, as in DINO, with ultrasound-safe augmentation."""

    def __init__(
        self,
        global_size: int,
        local_size: int,
        global_crops_scale: Sequence[float],
        local_crops_scale: Sequence[float],
        local_crops_number: int,
        seed: int,
        *,
        global_crops_number: int = 2,
        strength: Strength = FULL,
    ) -> None:
        """Configure the views.

        Args:
            global_size, local_size: side of the crops, pixels.
            global_crops_scale, local_crops_scale: least and greatest fraction of the image's valid
                area.
            local_crops_number: with 0, `local_crops` has no rows.
            seed: of all random numbers.
            global_crops_number: MAE uses 1.
            strength: of the augmentation.
        """
        self.sizes = (global_size, local_size)
        self.scales = (global_crops_scale, local_crops_scale)
        self.numbers = (global_crops_number, local_crops_number)
        self.seed = seed
        self.strength = strength

    def __call__(self, batch: Batch, step: int, *, rank: int = 0, world_size: int = 1) -> Views:
        """Views of this rank's batch at this step."""
        count, first = len(batch.image), rank * len(batch.image)
        # Each rank draws the numbers of all ranks and takes its slice: a view depends on the global
        # batch and not on the number of ranks.
        generator = step_generator(self.seed, step, "multi-crop")
        draws = [draw(number, count * world_size, generator) for number in self.numbers]
        # One result per kind of crop, filled in chunks: `torch.cat` would copy all views once more.
        crops = [
            torch.empty(number, count, 1, size, size)
            for number, size in zip(self.numbers, self.sizes, strict=True)
        ]
        for part in _parts(count):
            image, extent, anatomy = (
                _grey(batch.image[part]),
                batch.extent[part],
                batch.anatomy[part],
            )
            for crop, random, scale in zip(crops, draws, self.scales, strict=True):
                rows = random.part(first + part.start, first + part.stop)
                crop[:, part] = self._crops(
                    image, extent, anatomy, rows, crop.shape[-1], scale
                ).view_as(crop[:, part])
        return Views(crops[0].flatten(0, 1), crops[1].flatten(0, 1), batch.anatomy)

    def _crops(
        self,
        image: Tensor,
        extent: Tensor,
        anatomy: Tensor,
        draws: Draws,
        size: int,
        scale: Sequence[float],
    ) -> Tensor:
        """Views (V * B, 1, size, size) of grey levels (B, 1, S, S)."""
        views = len(draws.flip) // len(image)
        box = inner_boxes(draws.crop, extent.repeat(views, 1), scale)
        flip = flips(draws.flip, anatomy.repeat(views), self.strength)
        return _augment(image, extent, draws, box, flip, size, self.strength)


class TrainView:
    """One random crop of each image for fine-tuning, with flip and mild gain.

    The mask has the same geometry. Crops are stretched like `eval_view`, so an organ has the same
    shape in training and in evaluation.
    """

    def __init__(
        self, size: int, seed: int, scale: Sequence[float] = (0.5, 1.0), strength: Strength = MILD
    ) -> None:
        """`size` in pixels; `scale` as least and greatest fraction of the image's valid area."""
        self.size = size
        self.seed = seed
        self.scale = scale
        self.strength = strength

    def __call__(self, batch: Batch, step: int, *, rank: int = 0, world_size: int = 1) -> View:
        """The views of this rank's batch at this step."""
        count = len(batch.image)
        generator = step_generator(self.seed, step, "train-view")
        draws = draw(1, count * world_size, generator).part(rank * count, (rank + 1) * count)
        box = frame_boxes(draws.crop, batch.extent, self.scale)
        flip = flips(draws.flip, batch.anatomy, self.strength)
        images = [
            _augment(
                _grey(batch.image[part]),
                batch.extent[part],
                draws.rows(part),
                box[part],
                flip[part],
                self.size,
                self.strength,
            )
            for part in _parts(count)
        ]
        image = torch.cat(images)
        if batch.mask is None:
            return View(image, None)
        return View(image, resample_mask(batch.mask, batch.extent, box, self.size, flip=flip))


def eval_view(batch: Batch, size: int) -> View:
    """The whole valid part of each image and mask, both sides scaled to `size`."""
    box = torch.cat([torch.zeros_like(batch.extent), batch.extent], dim=1).float()
    images = [
        resample(_grey(batch.image[part]), batch.extent[part], box[part], size)
        for part in _parts(len(box))
    ]
    image = normalize(torch.cat(images))
    mask = None if batch.mask is None else resample_mask(batch.mask, batch.extent, box, size)
    return View(image, mask)
