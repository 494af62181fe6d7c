"""Read a dataset or a hospital export into one new batch of the corpus."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import pyarrow as pa

from arl import console
from arl.corpus.batch_summary import BATCH_FILE, BatchOrigin, BatchSummary
from arl.corpus.location import GrowingCorpus
from arl.corpus.manifest import QUARANTINE, SCHEMA, read_table
from arl.corpus.near_duplicates import duplicate_clusters
from arl.corpus.record import Input
from arl.corpus.shard_writer import BatchWriter
from arl.corpus.splits import DEFAULT, SPLIT_SCHEMA
from arl.ingest.batches import write_inputs
from arl.ingest.dicom.deidentify import secret_key
from arl.ingest.dicom.quarantine_key import write_quarantine_key
from arl.ingest.label_table import join_counts
from arl.ingest.readers import find_source, names
from arl.ingest.readers.dicom_folder import label_table, relative_paths, segmentations
from arl.ingest.refusals import check_refusals, reason_table
from arl.ingest.segmentations import segmentation_counts
from arl.ingest.source import Options, Source
from arl.ingest.thinning import WHOLE
from arl.params import Params

_DUPLICATE_COLUMNS = (
    *("id", "source", "patient", "clip", "label"),
    *("pixel_sha256", "perceptual_hash", "difference_hash", "detail_hash"),
)


def ingest(
    params: Params,
    source: str,
    *,
    root: Path,
    corpus: GrowingCorpus,
    batch: str = "0000",
    name: str | None = None,
    site: str | None = None,
    anatomy: str | None = None,
    probe: str | None = None,
    device: str | None = None,
    mask_name: str | None = None,
    part: str = "1/1",
    existing: Literal["refuse", "keep"] = "refuse",
    retry_refused: bool = False,
) -> None:
    """Read a dataset or a hospital export into one new batch of the corpus.

    Reads the folder `root` in the layout of `source` and writes <corpus>/<source>/<batch>. Each
    input ends as accepted images, or in the quarantine of the batch with a reason. Frames of clips
    that `data.thinning` leaves out are counted. If more than `data.max_refused` of the inputs are
    refused, or all inputs of a class, no batch is written.

    Args:
        source: Reader, as `arl datasets` lists them: bus-bra, dicom-folder, folder, csv, ...
        root: Folder or file to read.
        corpus: Corpus to add the batch to: a folder, or s3://bucket/prefix.
        batch: Name of the new batch.
        name: Name of the source in the corpus, for your own data; by default that of the reader.
        site: Institution of all images.
        anatomy: Anatomy of all images, one of the vocabulary.
        probe: Probe of all images: linear, convex, sector or unknown.
        device: Scanner of all images.
        mask_name: Structure that all masks show.
        part: k/n for the k-th of n equal parts of the inputs. Each part is its own batch, so many
            machines can read one export.
        existing: What to do if the batch exists: refuse, or keep it if it was made of as many
            inputs.
        retry_refused: Read only the inputs that the batch refused, into <batch>-retry-1 (or -2, ...
            if an earlier try refused some again). Use it after I/O errors or repairs.

    Raises:
        ValueError: Unknown source, an option that its reader does not take, an existing batch, or
            too many refused inputs.
        FileNotFoundError: `root` is not in the layout of the source.

    Writes:
        corpus

    Next:
        arl validate --corpus {corpus} --validation out/validation
        arl corpus-report --corpus {corpus} --validation out/validation --page out/corpus.html

    Examples:
        arl ingest bus-bra --root downloads/BUSBRA --corpus data
        arl ingest folder --root scans --corpus data --name our-breast --anatomy breast
            --site our-site
    """
    if existing not in ("refuse", "keep"):
        raise ValueError(f"existing is {existing!r}: expected refuse or keep")
    reader = find_source(source)
    options = Options(site=site, anatomy=anatomy, probe=probe, device=device, mask_name=mask_name)
    _check_options(reader, options)
    if name is not None and name != source and name in names():
        raise ValueError(f"--name {name} is the name of another reader; choose a name of your own")
    target = name or source
    inputs = _take_part(reader.read(root, options, params.dicom), part)
    if retry_refused:
        inputs, batch = _refused_before(corpus / target, batch, inputs)
    if existing == "keep" and (corpus / target / batch / BATCH_FILE).is_file():
        _check_same(corpus / target / batch, len(inputs))
        return
    rules = params.data.thinning
    thinning = rules.get(target, rules.get("default", WHOLE))
    origin = BatchOrigin(
        licence=reader.licence,
        citation=reader.citation,
        reader=source,
        options=options.typed(),
        thinning=asdict(thinning),
        burnt_in_text=params.dicom.burnt_in_text if reader.reads_dicom else None,
    )
    with BatchWriter(corpus, target, batch, params.data.store_size, origin=origin) as writer:
        results = write_inputs(
            inputs,
            writer,
            params.data.workers,
            thinning=thinning,
            seconds=params.data.input_seconds,
        )
        reasons = [result.reason for result in results]
        if any(reasons):
            console.info("\n".join(["Refused inputs by reason:", *reason_table(reasons)]))
        # An error here discards the batch, so that its name stays free.
        check_refusals(inputs, reasons, params.data.max_refused)
    _print_summary(writer.folder)
    if reader.reads_dicom and not reader.published:
        _write_quarantine_key(root, writer.folder)
    if reader.reads_dicom and (table := label_table(params.dicom)):
        joined = [result.label_rows for result in results if result.reason is None]
        print("Labels:", *join_counts(table, joined), sep="\n")
    if reader.reads_dicom and (masks := segmentations(params.dicom)):
        codes = frozenset(code for result in results for code in result.label_rows)
        print("Masks:", *segmentation_counts(masks, codes), sep="\n")


def _print_summary(folder: Path) -> None:
    summary = BatchSummary.read(folder)
    counts = [
        f"{summary.num_inputs:,} inputs, {summary.accepted:,} accepted ({summary.images:,} images)",
        f"{summary.refused:,} refused",
    ]
    if summary.thinned:
        counts.append(f"{summary.thinned:,} frames thinned")
    if summary.blank:
        counts.append(f"{summary.blank:,} blank frames dropped")
    schema = pa.schema([SCHEMA.field(name) for name in _DUPLICATE_COLUMNS])
    rows = read_table(folder / "manifest.parquet", schema)
    splits = read_table(folder / "splits" / f"{DEFAULT}.parquet", SPLIT_SCHEMA)
    withheld = int(duplicate_clusters(rows.merge(splits, on="id"))["withheld"].sum())
    if withheld:
        counts.append(f"{withheld:,} images withheld from training as near-duplicates")
    console.info(f"{folder}: {', '.join(counts)}")


def _check_options(reader: Source, options: Options) -> None:
    for option, value in options.typed().items():
        if option not in reader.options:
            flags = [f"--{taken.replace('_', '-')}" for taken in reader.options]
            raise ValueError(
                f"source {reader.name!r} takes no --{option.replace('_', '-')} (given: {value!r}); "
                f"its options are: {', '.join(flags) or 'none'}"
            )


def _refused_before(folder: Path, batch: str, inputs: list[Input]) -> tuple[list[Input], str]:
    """The inputs that the last try of a batch refused, and the name of the next try."""
    tries = 1
    while (folder / f"{batch}-retry-{tries}" / BATCH_FILE).is_file():
        tries += 1
    last = batch if tries == 1 else f"{batch}-retry-{tries - 1}"
    refused = set(read_table(folder / last / "quarantine.parquet", QUARANTINE)["input"])
    chosen = [item for item in inputs if item.name in refused]
    if not chosen:
        raise ValueError(f"{folder / last} refused none of the {len(inputs)} inputs of the root")
    return chosen, f"{batch}-retry-{tries}"


def _write_quarantine_key(root: Path, folder: Path) -> None:
    """Keep the paths of refused hospital files, encrypted, outside the corpus."""
    refused = set(read_table(folder / "quarantine.parquet", QUARANTINE)["input"])
    if not refused:
        return
    key = secret_key()
    paths = {name: path for name, path in relative_paths(root, key).items() if name in refused}
    file = write_quarantine_key(folder.parent.name, folder.name, paths, key)
    console.info(f"{file}: encrypted paths of {len(paths)} refused files, see `arl quarantine`")


def _take_part(inputs: list[Input], part: str) -> list[Input]:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", part)
    if not match or int(match[1]) > int(match[2]):
        raise ValueError(f"part {part!r} is not k/n with k from 1 to n, e.g. 3/16")
    number, parts = int(match[1]), int(match[2])
    # Contiguous parts: neighbouring inputs are mostly of one patient.
    return inputs[len(inputs) * (number - 1) // parts : len(inputs) * number // parts]


def _check_same(folder: Path, num_inputs: int) -> None:
    before = BatchSummary.read(folder).num_inputs
    if before != num_inputs:
        raise ValueError(
            f"{folder} was made of {before} inputs, and there are {num_inputs} now: "
            "a batch is written once; choose another batch name"
        )
    console.info(f"{folder}: exists already, with {num_inputs} inputs")
