"""How often poisoned and honest batches pass the label checks of the loop, without training.

    python benchmarks/poisoning.py PROJECT > poisoning.jsonl

PROJECT is a folder of `arl demo-retrain`, whose registry holds a champion of the reference site and
whose data/ holds the images that it was trained on. The script draws 60 honest batches of phantoms
(the scanner of the reference site at several gains, and new scanners) and makes 60 poisoned ones:

    flipped-1.0, -1.25, -1.5   all labels of the breast task exchanged, grey levels times the gain
    flipped-fifth              the labels of a fifth of the patients exchanged
    foreign-organ              pictures of another organ under the labels of the breast task
    test-copies                half of the pictures are slightly changed copies of test images

Every batch runs through the reader, the ingest and the checks that `arl watch` uses. One JSON line
per batch (its kind, whether it passed, and the values of the checks), then one line per kind. With
`--calibrate` the seeds are others, which are for choosing limits.
"""

import argparse
import csv
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from arl import params as parameters
from arl.commands.demo_retrain import _COLUMNS, _NEW, _Delivery, _patient
from arl.corpus.manifest import batch_folders
from arl.corpus.selection import select
from arl.corpus.shard_reader import read_images
from arl.monitoring.arrivals import train_only
from arl.monitoring.runs import link_batches
from arl.phantoms.scanner import ALPHA, BETA, Scanner
from arl.stages._label_checks import ReferenceFeatures, check_labels, with_group
from arl.stages.ingest import ingest
from arl.storage.registry import Registry

SITE = "northside"
BREAST, CARDIAC = 24, 10  # patients of a batch, with two images each
PER_KIND = 10
SCANNERS = {
    "same-scanner": ALPHA,
    "new-scanner-gamma": _NEW,
    "new-scanner-beta": BETA,
    "new-scanner-delta": replace(
        ALPHA, device="Phantom Delta", axial=0.006, lateral=0.013, looks=2, gain=7, gamma=0.95
    ),
}
Rows = list[dict[str, str]]


def draw(folder: Path, scanner: Scanner, seed: int, gain: float = 1.0) -> None:
    """A site's delivery of phantoms, in the layout of the reader phantom-table."""
    folder.mkdir(parents=True)
    delivery = _Delivery("batch", scanner, BREAST, CARDIAC, 100_000 + 1000 * seed, False, "")
    rows = [
        row
        for anatomy, count in (("breast", BREAST), ("cardiac", CARDIAC))
        for number in range(count)
        for row in _patient(folder, delivery, (anatomy, number))
    ]
    with (folder / "pictures.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([_COLUMNS.split(","), *rows])
    if gain != 1:
        for file in folder.glob("*.png"):
            if not file.stem.endswith("mask"):
                image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
                cv2.imwrite(str(file), (image * gain).clip(0, 255).astype(np.uint8))


def edit_table(folder: Path, change: Callable[[Rows], None]) -> None:
    """Change the rows of a delivery's table."""
    file = folder / "pictures.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS.split(","))
        writer.writeheader()
        writer.writerows(rows)


def flip(folder: Path, fraction: float, seed: int) -> None:
    """Exchange the labels of a fraction of the breast patients."""

    def change(rows: Rows) -> None:
        patients = sorted({row["patient"] for row in rows if row["anatomy"] == "breast"})
        rng = np.random.default_rng(seed)
        flipped = set(rng.choice(patients, round(fraction * len(patients)), replace=False))
        exchanged = {"benign": "malignant", "malignant": "benign"}
        for row in rows:
            if row["patient"] in flipped:
                row["label"] = exchanged[row["label"]]

    edit_table(folder, change)


def swap_organ(folder: Path) -> None:
    """Put cardiac pictures under the names, and so the labels, of breast pictures."""
    breast = sorted(folder.glob("breast-*.png"))
    cardiac = sorted(file for file in folder.glob("cardiac-*.png") if "mask" not in file.stem)
    for number, file in enumerate(file for file in breast if "mask" not in file.stem):
        shutil.copyfile(cardiac[number % len(cardiac)], folder / f"swapped-{number}.png")
        # The same heart several times would be refused as a duplicate, and so betray itself.
        image = cv2.imread(str(folder / f"swapped-{number}.png"), cv2.IMREAD_GRAYSCALE)
        shift = 1 + number // len(cardiac)
        cv2.imwrite(str(file), np.roll(image, 3 * shift, axis=1))
        (folder / f"swapped-{number}.png").unlink()

    def change(rows: Rows) -> None:
        for row in rows:
            if row["anatomy"] == "breast":
                row["mask"] = row["mask_file"] = ""

    edit_table(folder, change)


def copy_test_images(folder: Path, corpus: Path, rows: pd.DataFrame, seed: int) -> None:
    """Replace half of the breast pictures by test images with other grey levels."""
    test = rows[(rows["split"] == "test") & (rows["anatomy"] == "breast")]
    files = sorted(file for file in folder.glob("breast-*.png") if "mask" not in file.stem)
    chosen = test.sample(len(files) // 2, random_state=seed, replace=len(test) < len(files) // 2)
    for file, image in zip(files, read_images(corpus, chosen), strict=False):
        height, width = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(file), (resized * 1.05).clip(0, 255).astype(np.uint8))


def batches(
    seed: int, per_kind: int
) -> Iterator[tuple[str, bool, Callable[[Path, Path, pd.DataFrame], None]]]:
    """Kind, whether it is poisoned, and a function that makes the delivery."""
    honest = [("same-scanner", gain) for gain in (1.0, 1.25, 1.5)] + [
        (name, 1.0) for name in SCANNERS if name != "same-scanner"
    ]
    for kind, (name, gain) in enumerate(honest):
        for i in range(per_kind):
            number = seed + 100 * kind + i
            yield (
                f"{name}-{gain:g}",
                False,
                lambda folder, _c, _r, n=name, g=gain, s=number: draw(folder, SCANNERS[n], s, g),
            )
    poisons: dict[str, Callable[[Path, Path, pd.DataFrame, int], None]] = {
        **{
            f"flipped-{gain:g}": lambda folder, _c, _r, s, g=gain: (
                draw(folder, ALPHA, s, g),
                flip(folder, 1.0, s),
            )
            for gain in (1.0, 1.25, 1.5)
        },
        "flipped-fifth": lambda folder, _c, _r, s: (draw(folder, ALPHA, s), flip(folder, 0.2, s)),
        "foreign-organ": lambda folder, _c, _r, s: (draw(folder, ALPHA, s), swap_organ(folder)),
        "test-copies": lambda folder, c, r, s: (
            draw(folder, ALPHA, s),
            copy_test_images(folder, c, r, s),
        ),
    }
    for kind, (name, make) in enumerate(poisons.items()):
        for i in range(per_kind):
            number = seed + 1000 + 100 * kind + i
            yield name, True, lambda folder, c, r, m=make, s=number: m(folder, c, r, s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--part", default="1/1", help="k/n: every n-th batch from the k-th on")
    parser.add_argument("--per-kind", type=int, default=PER_KIND)
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    os.environ.setdefault("ARL_HASH_KEY", secrets.token_hex(32))
    params = parameters.load(["data.workers=0"], options.project / "params.yaml")
    registry = Registry(options.project / "registry", None)
    champion = registry.fetch(str(registry.champion()))
    corpus = (options.project / "data").resolve()
    present = [folder.relative_to(corpus).as_posix() for folder in batch_folders(corpus)]
    known = select(corpus, sources=[], protocols=params.data.splits)
    cached = ReferenceFeatures()
    passed: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for i, (kind, poisoned, make) in enumerate(
        batches(0 if options.calibrate else 70_000, options.per_kind)
    ):
        if i % parts != part - 1:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            make(work / "delivery", corpus, known)
            with redirect_stdout(sys.stderr):
                link_batches(corpus, present, work / "corpus")
                ingest(
                    params,
                    "phantom-table",
                    root=work / "delivery",
                    corpus=work / "corpus",
                    batch="new",
                    site=SITE,
                )
            train_only(work / "corpus/phantom-table/new")
            rows = with_group(select(work / "corpus", sources=[], protocols=params.data.splits))
            is_new = (rows["batch"] == "new").to_numpy()
            report = check_labels(
                params, rows, is_new, corpus=work / "corpus", champion=champion, cached=cached
            )
        ok = not report.failed
        passed[kind, poisoned].append(ok)
        line = {
            "kind": kind,
            "poisoned": poisoned,
            "passed": ok,
            "failed": [check.check for check in report.failed],
            "values": {
                f"{check.check} {check.task}".strip(): [
                    round(check.value, 3),
                    round(check.limit, 3),
                ]
                for check in report.checks
            },
            "seconds": round(time.monotonic() - started, 1),
        }
        print(json.dumps(line), flush=True)
    for (kind, poisoned), results in passed.items():
        total = {"kind": kind, "poisoned": poisoned, "batches": len(results)}
        print(json.dumps({**total, "passed": sum(results)}), flush=True)


if __name__ == "__main__":
    main()
