"""Make the sample corpus: synthetic phantoms, and the real ultrasound files that pydicom-data ships."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from arl.corpus.anatomy import ANATOMIES, anatomy_index
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.location import GrowingCorpus
from arl.corpus.record import Entry, Input, Record
from arl.corpus.shard_writer import BatchWriter
from arl.ingest.readers import pydicom_data, write
from arl.params import Params
from arl.phantoms.examination import LABELS, examine
from arl.phantoms.scanner import ALPHA, BETA, Scanner
from arl.stages._rules import anatomy_rules


@dataclass(frozen=True)
class _Batch:
    source: str
    name: str
    scanner: Scanner
    share: float  # of the phantoms


_BATCHES = (
    _Batch("phantom-a", "0000", ALPHA, 0.5),
    _Batch("phantom-b", "0000", BETA, 0.3),
    # the same machine after a service: a little brighter, harder and coarser, for the drift stage
    # to look at
    _Batch("phantom-b", "0001", replace(BETA, gain=9, dynamic_range=50, lateral=0.0135), 0.2),
)
_ORIGIN = BatchOrigin(
    licence="Synthetic: made by this software", citation="ARL phantoms (arl.phantoms)"
)
# of a class's patients, in turn: balanced at any size, which a hash of so few patients would not be
_SPLITS = (
    *("train", "test", "val", "train", "train", "test", "train", "train", "test", "train"),
    *("train", "test", "val", "train", "train", "test", "train", "val", "train", "train"),
)


def sample(params: Params, *, corpus: GrowingCorpus) -> None:
    """Make the sample corpus: synthetic phantoms, and the real ultrasound files that pydicom-data ships.

    Writes the sources phantom-a, phantom-b and pydicom-data below `corpus`, in place of earlier
    ones; other sources stay. The phantoms are marked synthetic in every row. The result depends on
    `seed`, `sample` and `data.store_size`, not on the number of workers.

    Raises:
        ValueError: a negative number of images, or a size under 32 pixels.
    """
    if (
        min(params.sample.images_per_anatomy, params.sample.images_per_task) < 0
        or params.sample.size < 32
    ):
        raise ValueError(
            f"{params.sample}: numbers of images must not be negative, and size must be 32 pixels or more"
        )
    size, seconds = params.data.store_size, params.data.input_seconds
    with _replacing(corpus) as staging:
        for batch in _BATCHES:
            with BatchWriter(staging, batch.source, batch.name, size, origin=_ORIGIN) as writer:
                write(_patients(params, batch), writer, params.data.workers, seconds=seconds)
        origin = BatchOrigin(licence=pydicom_data.LICENCE, citation=pydicom_data.CITATION)
        with BatchWriter(staging, "pydicom-data", "0000", size, origin=origin) as writer:
            inputs = pydicom_data.read(pydicom_data.installed(), anatomy_rules(params.dicom))
            write(inputs, writer, params.data.workers, seconds=seconds)


@contextmanager
def _replacing(corpus: Path) -> Iterator[Path]:
    """A folder whose sources replace those of the same name in the corpus when the block ends without an error."""
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
    """Every patient of a batch: unlabelled ones of each anatomy, then labelled ones where there are labels."""
    unlabelled, labelled = (
        _share(n, batch) for n in (params.sample.images_per_anatomy, params.sample.images_per_task)
    )
    found = [
        _patient(params, batch, a, k, [None] * n, k)
        for a in ANATOMIES
        for k, n in enumerate(_sizes(unlabelled))
    ]
    for anatomy, classes in LABELS.items():
        for k, n in enumerate(_sizes(labelled, len(classes))):
            labels = [classes[(k + i * (anatomy == "cardiac")) % len(classes)] for i in range(n)]
            found.append(_patient(params, batch, anatomy, 10_000 + k, labels, k // len(classes)))
    return found


def _share(total: int, batch: _Batch) -> int:
    """Images of a batch out of `total`: at least one, so that no batch is empty of an anatomy."""
    return max(1, round(total * batch.share)) if total else 0


def _sizes(total: int, classes: int = 1) -> list[int]:
    """Images of each patient: two for one of each class, then three, in turn; the last one takes what is left."""
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
    place = _BATCHES.index(batch)
    seed = (params.seed, place, anatomy_index(anatomy), number)
    split = _SPLITS[
        (turn + place) % len(_SPLITS)
    ]  # each batch begins elsewhere, so that few patients fill all splits
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
    records = []
    for view, phantom in enumerate(examine(anatomy, scanner, seed, labels, height)):
        entry = Entry(
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
        )
        records.append(Record(phantom.image, entry, phantom.mask))
    return records
