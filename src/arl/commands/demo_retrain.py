"""The loop shown on phantoms: a reference site, and four batches that arrive; nobody touches it."""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from arl.evaluation.decision import read_decision
from arl.ingest.inbox import list_batches
from arl.monitoring.journal import Journal, LogEntry
from arl.phantoms.examination import Phantom, examine
from arl.phantoms.scanner import ALPHA, Scanner
from arl.storage.registry import Registry

_PROJECT = ("conf", "src", "pipelines", "components", "dvc.yaml", ".dvcignore", ".gitignore")
_SITE = "northside"
_HEIGHT = 128  # of a phantom, pixels
_VIEWS = 2  # images of a patient
_SPLITS = (
    "train",
    "test",
    "train",
    "val",
    "train",
    "test",
    "train",
    "test",
    "train",
    "val",
)  # in turn, by patient
# of sources.picture_table
_COLUMNS = "file,patient,anatomy,label,mask,mask_file,probe,device,depth_cm,pixel_spacing_mm,split"
# lower frequency, no compounding, more gain and noise: pictures that the first models have never
# seen the like of
_NEW = replace(
    ALPHA,
    device="Phantom Gamma",
    axial=0.008,
    lateral=0.018,
    looks=1,
    gain=11,
    dynamic_range=48,
    gamma=0.85,
    noise=-32,
    clutter=-19,
)


@dataclass(frozen=True)
class _Delivery:
    """A batch that a site sends."""

    name: str
    scanner: Scanner
    breast: int  # patients
    cardiac: int
    first: int  # number of the first patient
    torn: bool  # the pictures are cut off in the middle
    expected: str  # the right decision
    flipped: bool = False  # benign pictures are labelled malignant, and malignant ones benign


_EXCHANGED = {"benign": "malignant", "malignant": "benign"}
# Three of ten cardiac patients are test patients, and a first release needs 30 (gate.min_patients).
_REFERENCE = _Delivery("reference", ALPHA, 150, 110, 0, False, "")
_DELIVERIES = (
    _Delivery("week-1", ALPHA, 30, 20, 1000, False, "no-drift"),
    _Delivery("week-2-new-scanner", _NEW, 90, 60, 2000, False, "retrain"),
    _Delivery("week-3-corrupt", ALPHA, 12, 8, 3000, True, "refused"),
    _Delivery("week-4-poisoned", ALPHA, 30, 20, 4000, False, "held", flipped=True),
)


def demo_retrain(folder: Path, choices: list[str]) -> None:
    """Show the monitoring loop on synthetic data, in a new project.

    The new project has its own git and DVC repositories. The demo trains and releases a first
    champion, starts `arl watch` on an inbox, and delivers four batches: the same scanner, a new
    scanner, a corrupt upload and one with exchanged labels, which waits for a person. It prints the
    log and the pages. It takes some minutes.

    Args:
        folder: Folder of the new project. It must not exist.
        choices: Further choices of `arl configure`, e.g. pretrain.threads=1.

    Raises:
        ValueError: the folder exists, a step failed, or a decision is not the right one.
        FileNotFoundError: this is not the project's folder.

    Writes:
        folder

    Examples:
        arl demo-retrain build/demo
    """
    missing = [name for name in _PROJECT if not Path(name).exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} does not exist: run inside the project")
    if folder.exists():
        raise ValueError(
            f"{folder} exists: the demonstration makes a project of its own; name a folder that "
            f"is not there"
        )
    began = time.monotonic()
    project = _make_project(folder.absolute(), choices)
    _first_champion(project)
    seconds_text = f"{time.monotonic() - began:.0f} s"
    first = _champions(project)
    if not first:
        raise ValueError(
            f"the first models were not released: {project / 'out/decision/index.html'} says why;"
            " the demonstration needs its settings (experiment=demo), so leave out choices"
        )
    if not first:
        reasons = " ".join(read_decision(project / "out" / "decision").reasons)
        raise ValueError(f"the gate did not release the first models: {reasons}")
    print(f"demo: champion {first[-1]} after {seconds_text}", flush=True)
    _watch(project)
    _check(project, first, time.monotonic() - began)


def _make_project(project: Path, choices: list[str]) -> Path:
    """A project like this one, without its data, models and history."""
    for name in _PROJECT:
        source = Path(name)
        if source.is_dir():
            shutil.copytree(
                source, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(source, project / name)
    _run(project, "git", "init", "--quiet")
    _run(project, "dvc", "init", "--quiet")
    # DVC would send usage statistics from a hospital network.
    _run(project, "dvc", "config", "core.analytics", "false")
    _run(project, "arl", "configure", "experiment=demo", *choices)
    _commit(project, "The project")
    return project


def _commit(project: Path, message: str) -> None:
    identity = ["-c", "user.name=arl demo", "-c", "user.email=arl-demo@localhost"]
    _run(project, "git", "add", "--all")
    _run(project, "git", *identity, "commit", "--quiet", "-m", message)


def _run(project: Path, *words: str) -> None:
    """Run a command of this environment in the project; what it says goes to demo.txt there."""
    with (project / "demo.txt").open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        done = subprocess.run(
            words,
            cwd=project,
            env=_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise ValueError(f"`{' '.join(words)}` failed in {project}; demo.txt there says why")


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "ARL_HASH_KEY": "of a demonstration on phantoms"} | {
        "ARL_HASH_KEY_FILE": ""
    }


def _first_champion(project: Path) -> None:
    """The same pipeline that will retrain, on the reference site."""
    print("demo: the reference site, its first training and release", flush=True)
    batch = _draw(project / "reference", _REFERENCE)
    _run(
        project,
        "arl",
        "ingest",
        "phantom-table",
        "--root",
        str(batch),
        "--corpus",
        "data",
        "--site",
        _SITE,
    )
    _run(project, "dvc", "add", "--quiet", "data")
    _run(project, "dvc", "repro")
    _commit(project, "The reference site")


def _draw(folder: Path, delivery: _Delivery) -> Path:
    """A site's export of phantoms, in the layout of `arl.ingest.readers.picture_table`."""
    folder.mkdir(parents=True)
    patients = [
        (anatomy, number)
        for anatomy in ("breast", "cardiac")
        for number in range(getattr(delivery, anatomy))
    ]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        drawn = pool.map(partial(_patient, folder, delivery), patients, chunksize=4)
        rows = [row for patient in drawn for row in patient]
    with (folder / "pictures.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([_COLUMNS.split(","), *rows])
    return folder


def _patient(folder: Path, delivery: _Delivery, patient: tuple[str, int]) -> list[list[str]]:
    """Draw one patient; the rows of their pictures."""
    anatomy, number = patient
    labels = (
        [("benign", "malignant")[number % 2]] * _VIEWS if anatomy == "breast" else ["A4C", "A2C"]
    )
    seed = (7, ("breast", "cardiac").index(anatomy), delivery.first + number)
    split = (
        _SPLITS[number // 2 % len(_SPLITS)]
        if anatomy == "breast"
        else _SPLITS[number % len(_SPLITS)]
    )
    name = f"{anatomy}-{delivery.first + number}"
    phantoms = examine(anatomy, delivery.scanner, seed, labels, _HEIGHT)
    return [
        [
            f"{name}-{view}.png",
            name,
            anatomy,
            *_write(folder, f"{name}-{view}", phantom, delivery),
            split,
        ]
        for view, phantom in enumerate(phantoms)
    ]


def _write(folder: Path, name: str, phantom: Phantom, delivery: _Delivery) -> list[str]:
    """Write a picture and its mask; its cells from label to pixel_spacing_mm."""
    file = folder / f"{name}.png"
    cv2.imwrite(str(file), phantom.image)
    if delivery.torn:
        os.truncate(file, file.stat().st_size // 2)
    mask_file = ""
    if phantom.mask is not None:
        mask_file = f"{name}-mask.png"
        cv2.imwrite(str(folder / mask_file), np.uint8(255) * phantom.mask)
    numbers = [f"{phantom.depth:g}", f"{10 * phantom.spacing:.4f}"]
    label = phantom.label or ""
    return [
        _EXCHANGED.get(label, label) if delivery.flipped else label,
        phantom.structure or "",
        mask_file,
        phantom.probe,
        delivery.scanner.device,
        *numbers,
    ]


def _watch(project: Path) -> None:
    """Let the batches arrive while `arl watch` runs, and end it when the last decision is made."""
    inbox = project / "inbox"
    (inbox / _SITE).mkdir(parents=True)
    with (project / "watch.txt").open("wb") as output:
        command = ["arl", "watch", str(inbox), "--every", "2"]
        watcher = subprocess.Popen(
            command, cwd=project, env=_environment(), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            for delivery in _DELIVERIES:
                _deliver(project, inbox / _SITE, delivery)
                for entry in _decided(project, delivery, watcher):
                    print(f"demo: {entry.label}", flush=True)
                    print("\n".join(f"  {words}" for words in entry.words), flush=True)
        finally:
            # Whatever happened: a watcher that is left would hold the project's lock.
            watcher.terminate()
            watcher.wait()


def _deliver(project: Path, site: Path, delivery: _Delivery) -> None:
    """Upload a batch file by file, slower than the watcher looks, and mark it complete."""
    print(f"demo: {delivery.name} arrives ({delivery.scanner.device})", flush=True)
    drawn = _draw(project / "deliveries" / delivery.name, delivery)
    files = sorted(drawn.iterdir())
    (site / delivery.name).mkdir()
    for i, file in enumerate(files):
        shutil.copy(file, site / delivery.name)
        if i == len(files) // 2:
            time.sleep(5)  # a look at half of it
    (site / f"{delivery.name}.complete").write_text(str(len(files)), encoding="utf-8")


def _decided(
    project: Path, delivery: _Delivery, watcher: "subprocess.Popen[bytes]"
) -> Iterator[LogEntry]:
    """The entries of the log on a delivery, until its run is closed.

    Raises:
        ValueError: the watcher ended, or gave the run up.
    """
    journal, printed = Journal(project / "monitor"), 0
    # The log names a batch by its alias, as the folder's name may be a patient's.
    listed = list_batches(str(project / "inbox"), 0, time.time())
    [batch] = [batch for batch in listed if batch.name == f"{_SITE}/{delivery.name}"]
    while True:
        time.sleep(1)
        entries = journal.entries()
        runs = {
            entry.run
            for entry in entries
            if entry.decision is not None and entry.decision.incoming == batch.alias
        }
        of_batch = [entry for entry in entries if entry.run in runs]
        yield from of_batch[printed:]
        printed = len(of_batch)
        if of_batch and not (project / "monitor" / "open.json").exists():
            return
        if watcher.poll() is not None or any(entry.event == "stuck" for entry in entries):
            raise ValueError(
                f"arl watch did not deal with {delivery.name}; {project / 'watch.txt'} says why"
            )


def _champions(project: Path) -> list[str]:
    """Every release that was champion, in their order."""
    return Registry(project / "registry", None).history()


def _check(project: Path, first: list[str], seconds: float) -> None:
    entries = Journal(project / "monitor").entries()
    decisions = [entry.decision.word for entry in entries if entry.decision is not None]
    expected = [delivery.expected for delivery in _DELIVERIES]
    champions = _champions(project)
    print(
        f"demo: decisions {', '.join(decisions)}; champions {' -> '.join(champions)}; "
        f"{seconds:.0f} s in all"
    )
    print(
        f"demo: {project / 'monitor' / 'index.html'} shows it, "
        f"{project / 'monitor' / 'log.jsonl'} is the log"
    )
    if decisions != expected or len(champions) != len(first) + 1:
        raise ValueError(
            f"the decisions should be {', '.join(expected)}, with one new champion after "
            f"{first[-1]}"
        )
