"""Frames per second from an S3 store to an augmented 224 batch: ARL's shards against a WebDataset
tar and single files.

    pip install webdataset==1.0.2        # needed here only, not a dependency of ARL
    python benchmarks/loader_s3.py --images FOLDER [--address s3://bucket/prefix] [--count 768]

Without an address, a Swift server on this machine serves (tests/s3_server.py), which then shares
its cores. The images are those of `loader.py`, stored three times; all sides stay grey, crop, flip
and normalise, and read everything once in
a shuffled order: PNG files fetched one by one by eight threads, a tar streamed by curl, and ARL's
row groups, first with nothing kept, then with what the first epoch has left on disk, and, to
compare, from a folder. Prints one JSON line with frames per second of the clock and of this
process' processor time (curl's included), and ARL's first epoch over the others' by processor time.
"""

import argparse
import io
import json
import os
import resource
import runpy
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import loader
import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor

from arl.corpus.s3_copy import local_copy
from arl.storage.s3 import Store
from arl.training.allocator import keep_freed_memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--address")
    parser.add_argument("--count", type=int, default=768)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["ARL_CACHE"] = str(folder / "cache")
        address = args.address or stack.enter_context(_served(folder / "swift"))
        loader.write(args.images, folder, args.count)
        store = Store(address)
        for file in sorted(
            file
            for kind in ("files", "arl")
            for file in (folder / kind).rglob("*")
            if file.is_file()
        ):
            store.upload(file.relative_to(folder).as_posix(), file)
        store.upload("images.tar", folder / "images.tar")
        (folder / "s3").mkdir()
        with local_copy(f"{address}/arl") as corpus:
            (folder / "s3/arl").symlink_to(corpus)
        told = {"benchmark": "loader_s3", "store": args.address or "Swift on this machine"}
        print(json.dumps({**told, **sides(folder, store)}))


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a new bucket of a server of its own; the environment has its keys."""
    from minio import Minio

    folder.mkdir()
    running = runpy.run_path(str(Path(__file__).parents[1] / "tests/s3_server.py"))["running"]
    with running(folder) as server:
        os.environ.update(server.environment)
        keys = (
            server.environment["AWS_ACCESS_KEY_ID"],
            server.environment["AWS_SECRET_ACCESS_KEY"],
        )
        client = Minio(
            server.endpoint.removeprefix("http://"),
            access_key=keys[0],
            secret_key=keys[1],
            secure=False,
            region="us-east-1",
        )
        client.make_bucket("benchmark")
        yield "s3://benchmark"


def sides(folder: Path, store: Store) -> dict[str, object]:
    """Frames per second of each, and the ratios."""
    found = {
        "png_one_by_one": _rates(_files(store)),
        "webdataset_tar": _rates(_tar(store)),
        "arl_first_epoch": _rates(loader.arl(folder / "s3")()),
        "arl_second_epoch": _rates(loader.arl(folder / "s3")()),
        "arl_folder": _rates(loader.arl(folder)()),
    }
    speed = {
        f"frames_per_{unit}": {name: round(rates[place]) for name, rates in found.items()}
        for place, unit in enumerate(("second", "cpu_second"))
    }
    ratios = {
        f"ratio_to_{other}": round(found["arl_first_epoch"][1] / found[other][1], 2)
        for other in ("png_one_by_one", "webdataset_tar")
    }
    return {**speed, **ratios}


def _files(store: Store) -> Iterator[Tensor]:
    keys = [item.key for item in store.objects("files/")]
    transform = loader.augmented()

    def image(key: str) -> Tensor:
        with Image.open(io.BytesIO(store.get(key))) as picture:
            return transform(picture.convert("L"))

    with ThreadPoolExecutor(8) as pool:
        shuffled = pool.map(
            image, [keys[place] for place in np.random.default_rng(0).permutation(len(keys))]
        )
        for batch in zip(*[shuffled] * loader.BATCH, strict=False):
            yield torch.stack(batch)


def _tar(store: Store) -> Iterator[Tensor]:
    found = webdataset.WebDataset(
        f"pipe:curl -s '{store.link('images.tar')}'", shardshuffle=False
    ).shuffle(500)
    found = (
        found.decode("pill")
        .to_tuple("png")
        .map_tuple(loader.augmented())
        .batched(loader.BATCH, partial=False)
    )
    return (images for (images,) in found)


def _rates(batches: Iterator[Tensor]) -> tuple[float, float]:
    """Frames per second of the clock, and of processor time."""
    begun, used = time.perf_counter(), _processor()
    frames = sum(len(batch) for batch in batches)
    return frames / (time.perf_counter() - begun), frames / (_processor() - used)


def _processor() -> float:
    return sum(
        use.ru_utime + use.ru_stime
        for use in (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
    )


if __name__ == "__main__":
    main()
