"""Make the sample corpus: phantoms, and the ultrasound files of pydicom-data."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from arl import console
from arl.corpus.anatomy import ANATOMIES, anatomy_index
from arl.corpus.batch_summary import BATCH_FILE, BatchOrigin, BatchSummary
from arl.corpus.location import GrowingCorpus
from arl.corpus.record import Entry, Input, Record
from arl.corpus.shard_writer import BatchWriter
from arl.ingest.batches import write_inputs
from arl.ingest.readers import pydicom_data
from arl.ingest.source import Options
from arl.params import Params
from arl.phantoms.examination import LABELS, examine
from arl.phantoms.scanner import ALPHA, BETA, Scanner


@dataclass(frozen=True)
class _Batch:
    source: str
    name: str
    scanner: Scanner
    fraction: float  # of the phantoms


_BATCHES = (
    _Batch("phantom-a", "0000", ALPHA, 0.5),
    _Batch("phantom-b", "0000", BETA, 0.3),
    # The same scanner after a service: a little brighter, with more contrast and coarser speckle.
    # The drift stage compares this batch with the batch before.
    _Batch("phantom-b", "0001", replace(BETA, gain=9, dynamic_range=50, lateral=0.0135), 0.2),
)
_ORIGIN = BatchOrigin(
    licence="Synthetic: made by this software", citation="ARL phantoms (arl.phantoms)"
)
# Splits of the patients of a class, in turn. This is balanced at any size; a hash of so few
# patients would not be.
_SPLITS = (
    *("train", "test", "val", "train", "train", "test", "train", "train", "test", "train"),
    *("train", "test", "val", "train", "train", "test", "train", "val", "train", "train"),
)


def sample(params: Params, *, corpus: GrowingCorpus) -> None:
    """Make the sample corpus: phantoms, and the ultrasound files of pydicom-data.

    Writes the sources phantom-a, phantom-b and pydicom-data below `corpus` and replaces earlier
    ones; other sources stay. Each phantom row is marked synthetic. The result depends on `seed`,
    `sample` and `data.store_size`, and not on the number of workers.

    Args:
        corpus: Corpus to write to.

    Raises:
        ValueError: A negative number of images, or a size under 32 pixels.

    Writes:
        corpus

    Next:
        arl validate --corpus {corpus} --validation out/validation

    Examples:
        arl sample --corpus data
    """
    settings = params.sample
    if min(settings.images_per_anatomy, settings.images_per_task) < 0 or settings.size < 32:
        raise ValueError(
            f"{settings}: numbers of images must not be negative, "
            "and size must be 32 pixels or more"
        )
    size, seconds = params.data.store_size, params.data.input_seconds
    # A killed run leaves the old sources untouched.
    with _replacing(corpus) as staging:
        for batch in _BATCHES:
            with BatchWriter(staging, batch.source, batch.name, size, origin=_ORIGIN) as writer:
                patients = _patients(params, batch)
                write_inputs(patients, writer, params.data.workers, seconds=seconds)
        source = pydicom_data.SOURCE
        origin = BatchOrigin(licence=source.licence, citation=source.citation)
        with BatchWriter(staging, source.name, "0000", size, origin=origin) as writer:
            inputs = source.read(pydicom_data.installed(), Options(), params.dicom)
            write_inputs(inputs, writer, params.data.workers, seconds=seconds)
        batches = [BatchSummary.read(file.parent) for file in staging.rglob(BATCH_FILE)]
    real = sum(batch.images for batch in batches if batch.source == source.name)
    synthetic = sum(batch.images for batch in batches) - real
    console.info(f"{synthetic:,} synthetic and {real:,} real images in {len(batches)} batches.")


@contextmanager
def _replacing(corpus: Path) -> Iterator[Path]:
    """A folder whose sources replace those of the corpus if the block ends without an error."""
    staging = corpus / ".sample.partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        for source in sorted(staging.iterdir()):
            shutil.rmtree(corpus / source.name, ignore_errors=True)
            source.rename(corpus / source.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _patients(params: Params, batch: _Batch) -> list[Input]:
    """Every patient of a batch: unlabelled patients of each anatomy, then labelled ones."""
    # Images of a batch out of `total`; at least one, so every batch has every anatomy.
    unlabelled, labelled = (
        (max(1, round(total * batch.fraction)) if total else 0)
        for total in (params.sample.images_per_anatomy, params.sample.images_per_task)
    )
    patients = [
        _patient(params, batch, a, k, [None] * n, k)
        for a in ANATOMIES
        for k, n in enumerate(_sizes(unlabelled))
    ]
    for anatomy, classes in LABELS.items():
        for k, n in enumerate(_sizes(labelled, len(classes))):
            labels = [classes[(k + i * (anatomy == "cardiac")) % len(classes)] for i in range(n)]
            patients.append(_patient(params, batch, anatomy, 10_000 + k, labels, k // len(classes)))
    return patients


def _sizes(total: int, classes: int = 1) -> list[int]:
    """Images of each patient: two for one of each class, then three, in turn."""
    sizes: list[int] = []
    while total > 0:
        sizes.append(min(2 + len(sizes) // classes % 2, total))
        total -= sizes[-1]
    return sizes


def _patient(
    params: Params,
    batch: _Batch,
    anatomy: str,
    number: int,
    labels: Sequence[str | None],
    turn: int,
) -> Input:
    name = f"{batch.name}-{anatomy}-{number:05d}"
    offset = _BATCHES.index(batch)
    # A seed per patient: the pictures do not depend on the number of workers.
    seed = (params.seed, offset, anatomy_index(anatomy), number)
    # Each batch begins elsewhere in the list, so that few patients fill all splits.
    split = _SPLITS[(turn + offset) % len(_SPLITS)]
    return Input(
        name,
        partial(
            _records, name, anatomy, batch.scanner, seed, tuple(labels), params.sample.size, split
        ),
    )


def _records(
    name: str,
    anatomy: str,
    scanner: Scanner,
    seed: Sequence[int],
    labels: Sequence[str | None],
    height: int,
    split: str,
) -> list[Record]:
    return [
        Record(
            phantom.image,
            Entry(
                key=f"{name}-{view}",
                anatomy=anatomy,
                patient=name,
                probe=phantom.probe,
                device=scanner.device,
                label=phantom.label,
                mask_name=phantom.structure,
                pixel_spacing_mm=10 * phantom.spacing,
                depth_cm=phantom.depth,
                synthetic=True,
                splits={"default": split},
            ),
            phantom.mask,
        )
        for view, phantom in enumerate(examine(anatomy, scanner, seed, labels, height))
    ]
