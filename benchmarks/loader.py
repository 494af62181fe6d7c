"""Frames per second and core from stored images to an augmented 224 batch: ARL's shards against
what the field uses.

    pip install webdataset==1.0.2        # needed here only, not a dependency of ARL
    python benchmarks/loader.py --images FOLDER [--count 1024] [--repeats 3]

The images of FOLDER (any that OpenCV reads), grey and scaled to a long side of at most 512, are
stored three times: as PNG files in class folders for torchvision's ImageFolder with PIL, as a
WebDataset tar of the same files, and as ARL shards. ImageFolder is measured with its own loader,
which makes three channels of one, and with one that stays grey, as the other sides do. Each side
reads all of them in its own shuffled order and yields float batches of 64 random resized crops of
224 x 224, flipped at random. All sides run in this process on one core, in turns; frames per second
are of processor time, which a busy machine changes less than the clock. Prints one JSON line.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor
from torchvision import datasets, transforms

from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.manifest import read_manifest
from arl.corpus.shard_writer import BatchWriter
from arl.loading.augment import Strength
from arl.loading.loader import Examples, TrainingOrder, training_batches
from arl.loading.transforms import MEAN, STD, MultiCrop
from arl.training.allocator import keep_freed_memory

SIZE, BATCH, SCALE, STORED = 224, 64, (0.3, 1.0), 512
Batches = Callable[[], Iterator[Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()  # as every training of ours does; it serves all sides
    os.sched_setaffinity(
        0, {min(os.sched_getaffinity(0))}
    )  # one core: ARL decodes on as many threads as there are
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(args.images, folder, args.count)
        sides = {
            "image_folder": image_folder(folder, datasets.folder.default_loader),
            "image_folder_grey": image_folder(folder, grey),
            "webdataset_grey": web_dataset(folder),
            "arl": arl(folder),
        }
        print(json.dumps({"benchmark": "loader", **measure(sides, args.repeats), **sizes(folder)}))


def write(images: Path, folder: Path, count: int) -> None:
    """The three stores, of the same pixels."""
    files = sorted(
        file
        for file in images.rglob("*")
        if file.suffix.lower() in (".png", ".jpg", ".tif", ".bmp")
    )
    pictures = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files[:count]]
    (folder / "files" / "all").mkdir(parents=True)
    with (
        BatchWriter(
            folder / "arl",
            "s",
            "0000",
            STORED,
            origin=BatchOrigin(licence="", citation=""),
        ) as shards,
        webdataset.TarWriter(str(folder / "images.tar")) as tar,
    ):
        for number in range(count):
            picture = np.roll(pictures[number % len(pictures)], number // len(pictures), axis=1)
            scale = min(1, STORED / max(picture.shape))
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            png = pil_png(picture)
            (folder / "files" / "all" / f"{number:06d}.png").write_bytes(png)
            tar.write({"__key__": f"{number:06d}", "png": png})
            shards.accept(picture, key=f"{number:06d}", anatomy="other")


def pil_png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def sizes(folder: Path) -> dict[str, int]:
    files = {"files": "files/**/*.png", "shards": "arl/**/shard-*.parquet"}
    return {
        f"bytes_{name}": sum(file.stat().st_size for file in folder.glob(p))
        for name, p in files.items()
    }


def augmented() -> transforms.Compose:
    """What the field writes."""
    crop = transforms.RandomResizedCrop(SIZE, SCALE)
    flip = transforms.RandomHorizontalFlip()
    return transforms.Compose([crop, flip, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def grey(file: str) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("L")


def image_folder(folder: Path, loader: Callable[[str], Image.Image]) -> Batches:
    found = datasets.ImageFolder(str(folder / "files"), augmented(), loader=loader)
    return lambda: (
        image
        for image, _ in torch.utils.data.DataLoader(found, BATCH, shuffle=True, drop_last=True)
    )


def web_dataset(folder: Path) -> Batches:
    transform = augmented()

    def batches() -> Iterator[Tensor]:
        found = webdataset.WebDataset(str(folder / "images.tar"), shardshuffle=False).shuffle(500)
        found = (
            found.decode("pill").to_tuple("png").map_tuple(transform).batched(BATCH, partial=False)
        )
        return (images for (images,) in found)

    return batches


def arl(folder: Path) -> Batches:
    rows = read_manifest(folder / "arl")
    plain = Strength(gain=0, slope=0, slider=0, shadow=0, speckle=0, blur=0)
    views = MultiCrop(SIZE, SIZE, SCALE, SCALE, 0, seed=0, global_crops_number=1, strength=plain)

    def batches() -> Iterator[Tensor]:
        # a cache of its own each time, so that every image is read and decoded
        examples = Examples(folder / "arl", rows, SIZE + SIZE // 4)
        order = TrainingOrder(examples.layout, BATCH, seed=0)
        for step, _, batch in training_batches(examples, order, 0, order.steps_per_epoch):
            yield views(batch, step).global_crops

    return batches


def measure(sides: dict[str, Batches], repeats: int) -> dict[str, object]:
    """Frames per second of processor time, the median of the runs, and ratios."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, batches in sides.items():
            start, frames = time.process_time(), 0
            for batch in batches():
                assert batch.shape[2:] == (SIZE, SIZE)
                frames += len(batch)
            found[name].append(frames / (time.process_time() - start))
    rates = {name: statistics.median(values) for name, values in found.items()}
    ratios = {
        f"ratio_to_{name}": round(rates["arl"] / rate, 2)
        for name, rate in rates.items()
        if name != "arl"
    }
    return {"frames_per_cpu_second": {name: round(rate) for name, rate in rates.items()}, **ratios}


if __name__ == "__main__":
    main()
