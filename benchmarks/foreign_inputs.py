"""How many foreign inputs the check of a task model flags, and how many of its own test images.

    ARL_REAL_DATA=DIR OMP_NUM_THREADS=1 python benchmarks/foreign_inputs.py WORK [key=value ...]

DIR has BUSBRA, FALLMUD and COVID-BLUES in their official layouts. WORK gets BUS-BRA without the
scanners that are held out, an encoder and a breast model with the settings of params.yaml (existing
ones are used again). Nothing of a foreign kind is in its training. Prints one JSON line a kind.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from pydicom import dcmread
from pydicom.data import get_testdata_files
from sklearn.datasets import load_sample_images

from arl.corpus.anatomy import ANATOMIES
from arl.corpus.pixels import as_grey, stretch
from arl.corpus.record import Pixels
from arl.evaluation.input_check import REFUSED, InputCheck, appearances, pooled_tokens
from arl.inference.inputs import InputImage, as_batch
from arl.ingest.video import read_frames
from arl.loading.transforms import eval_view
from arl.phantoms.examination import examine
from arl.phantoms.scanner import ALPHA
from arl.training.task_models import load_task_model

ROOT = Path(__file__).parent.parent  # has params.yaml and conf/
HELD_OUT = ("Toshiba", "U-Systems")
OTHER_MODALITIES = {"CT", "MR", "CR", "DX", "MG", "NM", "PT", "XA", "RF", "OT", "XC", "OPT"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    real = Path(os.environ["ARL_REAL_DATA"])
    model = train(args.work.resolve(), real / "BUSBRA", args.overrides)
    network, config = load_task_model(model)
    network.eval()
    check = InputCheck.read(model)
    assert check is not None
    for kind, pictures in kinds(real, args.work).items():
        distances = []
        for picture in pictures:
            canvas = stretch(as_grey(picture), config.size)[0]
            image = InputImage("", 0, 0, None, canvas, (config.size, config.size))
            batch = as_batch([image], config.task.anatomy)
            view = eval_view(batch, config.size).image
            tokens = pooled_tokens(network.encoder, view, batch.anatomy)
            distances.append(float(check.distances(appearances(canvas[None]), tokens)[0]))
        far = np.asarray(distances)
        line = {
            "benchmark": "foreign_inputs",
            "kind": kind,
            "images": len(far),
            "flagged": round(float((far > 1).mean()), 3),
            "refused": round(float((far > REFUSED).mean()), 3),
            "distance_5_50_95": np.quantile(far, [0.05, 0.5, 0.95]).round(2).tolist(),
        }
        print(json.dumps(line), flush=True)


def train(work: Path, busbra: Path, overrides: list[str]) -> Path:
    """A breast model that has seen the scanners that are not held out; its folder."""
    tree, model = work / "BUSBRA", work / "model"
    if not tree.exists():
        without_held_out(busbra, tree)
    words = ["data.sources=[bus-bra]", "pretrain.threads=1", *overrides]
    corpus, checkpoint = ["--corpus", str(work / "data")], work / "encoder"
    if not (work / "data").exists():
        arl("ingest", "bus-bra", "--root", str(tree), *corpus, *words)
    if not checkpoint.exists():
        metrics = ["--metrics", str(work / "pretrain.json")]
        arl("pretrain", *corpus, "--checkpoint", str(checkpoint), *metrics, *words)
    if not model.exists():
        options = ["--checkpoint", str(checkpoint), "--model", str(model)]
        arl("finetune", "--task", "breast", *corpus, *options, *words)
    return model


def arl(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "arl.cli", *words], check=True, cwd=ROOT)


def without_held_out(busbra: Path, tree: Path) -> None:
    """A copy of the official layout, by links, without the images of the held-out scanners."""
    tree.mkdir(parents=True)
    for name in ("Images", "Masks"):
        (tree / name).symlink_to(busbra / name)
    kept = {row["ID"] for row in rows_of(busbra / "bus_data.csv") if not is_held_out(row)}
    for file in busbra.glob("*.csv"):
        rows = rows_of(file)
        with (tree / file.name).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(row for row in rows if row["ID"] in kept)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def is_held_out(row: dict[str, str]) -> bool:
    return row["Device"].startswith(HELD_OUT)


def kinds(real: Path, work: Path) -> dict[str, Iterable[Pixels]]:
    """Pictures by kind; the own test images are those of official fold 1."""
    rng = np.random.default_rng(0)
    table = {row["ID"]: row for row in rows_of(real / "BUSBRA" / "bus_data.csv")}
    fold = {row["ID"] for row in rows_of(work / "BUSBRA" / "5-fold-cv.csv") if row["kFold"] == "1"}
    own = sorted(fold)
    devices = {
        f"held-out scanner {word}": [
            n for n, row in table.items() if row["Device"].startswith(word)
        ]
        for word in HELD_OUT
    }
    files = {
        kind: [real / "BUSBRA" / "Images" / f"{n}.png" for n in names]
        for kind, names in {"own test": own, **devices}.items()
    }
    files["FALLMUD (muscle)"] = sorted((real / "FALLMUD").glob("*/images/*"))
    stills = {kind: map(read_grey, paths) for kind, paths in files.items()}
    clips = sorted((real / "COVID-BLUES" / "lus_videos").iterdir())
    return {
        **stills,
        "COVID-BLUES (lung), middle frames": map(middle_frame, clips),
        "phantoms of breast": phantoms(["breast"]),
        "phantoms of other organs": phantoms(
            [a for a in ANATOMIES if a not in ("breast", "other")]
        ),
        "other modalities (pydicom)": other_modalities(),
        "noise": [noise(rng, i) for i in range(100)],
        "pages of text": [text_page(rng) for _ in range(100)],
        "photographs": photographs(rng),
        "photographed screens": [screen(read_grey(path), rng) for path in files["own test"][:100]],
    }


def read_grey(file: Path) -> Pixels:
    picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert picture is not None, file
    return np.asarray(picture, np.uint8)


def middle_frame(clip: Path) -> Pixels:
    frames = list(read_frames(clip))
    return as_grey(frames[len(frames) // 2])


def phantoms(anatomies: list[str]) -> Iterator[Pixels]:
    for anatomy in anatomies:
        for seed in range(60 // len(anatomies) + 1):
            yield examine(anatomy, ALPHA, (7, seed), [None], 256)[0].image


def other_modalities() -> Iterator[Pixels]:
    """One picture of each of pydicom's files of another modality that can be read."""
    seen = set()
    for file in sorted(get_testdata_files("*.dcm")):
        try:
            header = dcmread(file)
            values = np.asarray(header.pixel_array, float) if "PixelData" in header else None
        except Exception:  # pydicom keeps damaged files for its own tests
            continue
        if values is None or header.get("Modality") not in OTHER_MODALITIES:
            continue
        while values.ndim > 2:
            values = values.mean(-1) if values.shape[-1] == 3 else values[len(values) // 2]
        if min(values.shape) < 32 or values.max() == values.min():
            continue
        values = (values - values.min()) / (values.max() - values.min()) * 255
        key = (values.shape, round(float(values.mean()), 2))
        if key not in seen:
            seen.add(key)
            yield values.astype(np.uint8)


def noise(rng: np.random.Generator, number: int) -> Pixels:
    values = rng.normal(size=(300, 300)).astype(np.float32)
    if number % 3:
        values = cv2.GaussianBlur(values, (0, 0), float(rng.uniform(0.7, 6)))
    values = (values - values.min()) / (values.max() - values.min())
    return np.asarray(values * 255, np.uint8)


def text_page(rng: np.random.Generator) -> Pixels:
    paper = int(rng.choice([0, 30, 235, 255]))
    page = np.full((600, 500), paper, np.uint8)
    y = 30
    while y < 600:
        letters = (chr(rng.integers(97, 123)) if rng.random() > 0.15 else " " for _ in range(60))
        font, size = int(rng.integers(0, 5)), float(rng.uniform(0.4, 0.9))
        cv2.putText(page, "".join(letters), (20, y), font, size, 255 - paper, 1, cv2.LINE_AA)
        y += int(rng.integers(18, 40))
    return page


def photographs(rng: np.random.Generator) -> Iterator[Pixels]:
    """Crops of the two photographs that scikit-learn has."""
    for image in load_sample_images().images:
        grey = as_grey(image)
        for _ in range(25):
            y, x = (int(rng.integers(0, side - 200)) for side in grey.shape)
            yield grey[y : y + 200, x : x + 200]


def screen(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture on a monitor, photographed: perspective, moire, haze, a wall around it."""
    height, width = picture.shape
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    moved = corners * 0.85 + rng.uniform(0.02, 0.13, (4, 2)) * [width, height]
    y, x = np.mgrid[:height, :width]
    pitch = rng.uniform(0.2, 0.4)
    moire = 10 * np.sin(2 * np.pi * (pitch * x + 0.05 * y)) * np.sin(2 * np.pi * pitch * y)
    shown = np.clip(picture * rng.uniform(0.7, 0.9) + rng.uniform(15, 40) + moire, 0, 255)
    wall = np.clip(rng.normal(rng.uniform(30, 190), 4, picture.shape), 0, 255).astype(np.uint8)
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    warped = cv2.warpPerspective(
        shown.astype(np.uint8),
        matrix,
        (width, height),
        dst=wall,
        borderMode=cv2.BORDER_TRANSPARENT,
    )
    return np.asarray(cv2.GaussianBlur(warped, (0, 0), float(rng.uniform(0.6, 1.2))), np.uint8)


if __name__ == "__main__":
    main()
