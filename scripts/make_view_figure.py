"""Draw one picture of each augmentation of arl.loading.augment.

    python scripts/make_view_figure.py [IMAGE FOLDER [SIDE]]

Each PNG shows the image and four random versions with one part switched on, at full strength.
`views.png` shows everything together: the image, two global crops and six local ones. Without
arguments the script makes the pictures of docs/explanation/views.md, of a synthetic liver.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arl.loading.augment import Strength, apply_decibels, blur_std, decibels, draw, flips
from arl.loading.loader import Batch
from arl.loading.resample import resample
from arl.loading.transforms import MultiCrop, denormalize, eval_view, normalize
from arl.phantoms.examination import examine
from arl.phantoms.scanner import ALPHA

OFF = Strength(flip=0, gain=0, slope=0, slider=0, shadow=0, speckle=0, blur=0)
PARTS = {
    "flip": replace(OFF, flip=0.5),
    "gain": replace(OFF, gain=Strength.gain),
    "attenuation": replace(OFF, slope=Strength.slope),
    "tgc": replace(OFF, slider=Strength.slider),
    "shadow": replace(OFF, shadow=1.0),
    "speckle": replace(OFF, speckle=1.0),
    "blur": replace(OFF, blur=1.0),
}


def phantom() -> Image.Image:
    """A synthetic liver, 320 pixels high."""
    [image] = examine("liver", ALPHA, (7,), (None,), 320)
    return Image.fromarray(image.image)


def on_canvas(image: Image.Image) -> Batch:
    """One image on a canvas of its long side."""
    grey = torch.from_numpy(np.asarray(image.convert("L")).copy())
    height, width = grey.shape
    canvas = torch.zeros((1, 1, max(grey.shape), max(grey.shape)), dtype=torch.uint8)
    canvas[0, 0, :height, :width] = grey
    one = torch.zeros(1, dtype=torch.long)
    return Batch(
        canvas, torch.tensor([[height, width]]), anatomy=one, target=one, mask=None, index=one
    )


def save_row(views: list[Tensor], path: Path) -> None:
    """Normalised views (1, S, S) of any sizes side by side, on the tallest one's height."""
    height = max(view.shape[-1] for view in views)
    grey = [(denormalize(view[0]).clamp(0, 1) * 255).round().byte().numpy() for view in views]
    tall = [np.pad(view, ((0, height - len(view)), (0, 4)), constant_values=255) for view in grey]
    Image.fromarray(np.hstack(tall)).save(path)


def versions(batch: Batch, strength: Strength, size: int, count: int = 4) -> Tensor:
    """The whole image with `count` random draws of the parts that `strength` has switched on."""
    draws = draw(count, 1, torch.Generator().manual_seed(7)).part(0, 1)
    height, width = batch.extent[0].tolist()
    crops = resample(
        batch.image.float() / 255,
        batch.extent,
        torch.tensor([[0.0, 0.0, height, width]]).repeat(count, 1),
        size,
        flip=flips(draws.flip, batch.anatomy.repeat(count), strength),
        blur=blur_std(draws.blur, strength),
    )
    return normalize(apply_decibels(crops, decibels(draws, strength, size)))


def main(image: Image.Image, folder: Path, side: int = 224) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    batch = on_canvas(image)
    original = eval_view(batch, side).image
    for name, strength in PARTS.items():
        save_row([*original, *versions(batch, strength, side)], folder / f"{name}.png")
    crops = MultiCrop(side, side // 2, (0.32, 1), (0.05, 0.32), 6, seed=7)(batch, step=0)
    save_row([*original, *crops.global_crops, *crops.local_crops], folder / "views.png")


if __name__ == "__main__":
    if len(sys.argv) not in (1, 3, 4):
        sys.exit(__doc__)
    if len(sys.argv) == 1:
        main(phantom(), Path(__file__).parents[1] / "docs/explanation/views", 128)
    else:
        main(Image.open(sys.argv[1]), Path(sys.argv[2]), *(int(side) for side in sys.argv[3:]))
