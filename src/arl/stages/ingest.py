"""Read a dataset or a hospital drop into one new batch of the corpus."""

import re
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from arl.corpus.batch_summary import BATCH_FILE, BatchOrigin, BatchSummary
from arl.corpus.location import GrowingCorpus
from arl.corpus.record import Input
from arl.corpus.shard_writer import BatchWriter
from arl.ingest.readers import names, reader, write
from arl.ingest.thinning import WHOLE
from arl.params import Params
from arl.settings import Thinning
from arl.stages._rules import anatomy_rules

_CONFIGURED = (
    "rules",
    "burnt_in_text",
)  # arguments of a reader that params.yaml gives, not the command line


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
    existing: str = "refuse",
) -> None:
    """Read a dataset or a hospital drop into one new batch of the corpus.

    Reads the folder `root` in the layout of `source`; writes <corpus>/<source>/<batch>. Every input
    ends as accepted images or in the batch's quarantine with a reason; frames of clips that
    `data.thinning` leaves out are counted.

    Args:
        source: a reader of `arl.ingest.readers`, as `arl datasets` lists them: bus-bra,
            dicom-folder, folder, csv, ...
        name: what the corpus calls the source, for sets of your own; otherwise as its reader.
        site, anatomy, probe, device, mask_name: of all images, for sets that do not say it
            themselves.
        part: k/n for the k-th of n equal parts of the inputs, each a batch of its own, so that many
            machines may read
            one drop.
        existing: what to do about a batch that is there: refuse, or keep it if it was made of as
            many inputs.

    Raises:
        ValueError: unknown source, an option that its reader does not take, a batch that exists, an
            input was lost.
        FileNotFoundError: `root` is not in the layout of the source.
    """
    module = reader(source)
    said = {
        "site": site,
        "anatomy": anatomy,
        "probe": probe,
        "device": device,
        "mask_name": mask_name,
    }
    options = _options(
        source, module, {option: value for option, value in said.items() if value is not None}
    )
    called = _name(source, name)
    inputs = _part(module.read(root, **options, **_configured(params, module)), part)
    if existing not in ("refuse", "keep"):
        raise ValueError(f"existing is {existing!r}: it is refuse or keep")
    if existing == "keep" and (corpus / called / batch / BATCH_FILE).is_file():
        _check_same(corpus / called / batch, len(inputs))
        return
    thinning = _thinning(params, called)
    origin = BatchOrigin(
        licence=module.LICENCE,
        citation=module.CITATION,
        reader=source,
        options=options,
        thinning=asdict(thinning),
        burnt_in_text=params.dicom.burnt_in_text
        if "burnt_in_text" in signature(module.read).parameters
        else None,
    )
    with BatchWriter(corpus, called, batch, params.data.store_size, origin=origin) as writer:
        write(
            inputs,
            writer,
            params.data.workers,
            thinning=thinning,
            seconds=params.data.input_seconds,
        )
    summary = BatchSummary.read(writer.folder)
    thinned = f", {summary.thinned} frames thinned" if summary.thinned else ""
    print(
        f"{writer.folder}: {summary.given} inputs, {summary.accepted} accepted "
        f"({summary.images} images), {summary.refused} refused{thinned}"
    )


def _part(inputs: list[Input], part: str) -> list[Input]:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", part)
    if not match or int(match[1]) > int(match[2]):
        raise ValueError(f"part {part!r} is not k/n with k from 1 to n, e.g. 3/16")
    number, parts = int(match[1]), int(match[2])
    # neighbours stay together, since they are mostly of one patient
    return inputs[len(inputs) * (number - 1) // parts : len(inputs) * number // parts]


def _check_same(folder: Path, given: int) -> None:
    before = BatchSummary.read(folder).given
    if before != given:
        raise ValueError(
            f"{folder} was made of {before} inputs and there are {given} now: a batch is written once; "
            "choose another batch name"
        )
    print(f"{folder}: is there already, with {given} inputs")


def _options(source: str, module: ModuleType, given: dict[str, str]) -> dict[str, str]:
    """What the reader is told: the options that its signature names, and no others."""
    taken = [
        name for name in signature(module.read).parameters if name not in ("root", *_CONFIGURED)
    ]
    for option, value in given.items():
        if option not in taken:
            flags = ", ".join(_flag(name) for name in taken) or "none"
            raise ValueError(
                f"source {source!r} takes no {_flag(option)} (given: {value!r}); of these it takes {flags}"
            )
    return given


def _configured(params: Params, module: ModuleType) -> dict[str, Any]:
    """What the reader takes of section `dicom`."""
    taken = signature(module.read).parameters
    options: dict[str, Any] = {}
    if "rules" in taken:
        options["rules"] = anatomy_rules(params.dicom)
    if "burnt_in_text" in taken:
        options["burnt_in_text"] = params.dicom.burnt_in_text
    return options


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _name(source: str, name: str | None) -> str:
    if name is not None and name != source and name in names():
        raise ValueError(f"--name {name} is the name of another reader; choose one of your own")
    return name or source


def _thinning(params: Params, source: str) -> Thinning:
    rules = params.data.thinning
    return rules.get(source, rules.get("default", WHOLE))
