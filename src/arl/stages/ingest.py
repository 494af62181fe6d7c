"""Read a dataset or a hospital drop into one new batch of the corpus."""

from inspect import signature
from pathlib import Path
from types import ModuleType

from arl.data.shards import BatchWriter
from arl.data.sources import reader, write
from arl.files import read_json
from arl.params import Params


def ingest(
    params: Params, source: str, *, root: Path, corpus: Path, batch: str = "0000", site: str | None = None
) -> None:
    """Read a dataset or a hospital drop into one new batch of the corpus.

    Reads the folder `root` in the layout of `source`; writes <corpus>/<source>/<batch>. Every input ends as accepted
    images or in the batch's quarantine with a reason.

    Args:
        source: a reader of `arl.data.sources`: bus-bra, fallmud, dicom-folder, ...
        site: name of the institution; for hospital drops only.

    Raises:
        ValueError: unknown source, a batch that exists, an input that was lost.
        FileNotFoundError: `root` is not in the layout of the source.
    """
    module = reader(source)
    inputs = module.read(root, **_options(source, module, site))
    about = {"licence": module.LICENCE, "citation": module.CITATION}
    with BatchWriter(corpus, source, batch, params.data.store_size, **about) as writer:
        write(inputs, writer, params.data.workers)
    counts = read_json(writer.folder / "batch.json")
    told = "{given} inputs, {accepted} accepted ({images} images), {refused} refused".format(**counts)
    print(f"{writer.folder}: {told}")


def _options(source: str, module: ModuleType, site: str | None) -> dict[str, str]:
    if site is None:
        return {}
    if "site" not in signature(module.read).parameters:
        raise ValueError(f"source {source!r} is one site: leave out --site {site}")
    return {"site": site}
