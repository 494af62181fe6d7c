"""Read a dataset or a hospital drop into one new batch of the corpus."""

from pathlib import Path

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

    Raises:
        ValueError: unknown source, a batch that exists, an input that was lost.
        FileNotFoundError: `root` is not in the layout of the source.
    """
    module = reader(source)
    options = {} if site is None else {"site": site}
    inputs = module.read(root, **options)
    about = {"licence": module.LICENCE, "citation": module.CITATION}
    with BatchWriter(corpus, source, batch, params.data.store_size, **about) as writer:
        write(inputs, writer, params.data.workers)
    counts = read_json(writer.folder / "batch.json")
    print(
        "{folder}: {given} inputs, {accepted} accepted ({images} images), {refused} refused".format(
            folder=writer.folder, **counts
        )
    )
