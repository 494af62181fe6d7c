"""Pictures of what an encoder has learned: the paper's figures 1c, 3 and 5, and the offsets of
ACDT.
"""

from pathlib import Path

import torch

from arl import console
from arl.corpus.location import ReadableCorpus
from arl.corpus.selection import select
from arl.experiments.pictures import (
    EACH,
    components,
    corpus_by_anatomy,
    has_offsets,
    offsets,
    planes,
    reconstructions,
    some,
)
from arl.files import atomic_directory
from arl.models.avit import AViT
from arl.params import Params
from arl.reports.experiment import write_figures
from arl.reports.stamp import Stopwatch
from arl.training.checkpoint import load_encoder
from arl.training.reconstruction import has_reconstructor, load_reconstructor


def figures(
    params: Params,
    *,
    corpus: ReadableCorpus,
    checkpoint: Path,
    out: Path = Path("out/figures"),
    against: Path | None = None,
) -> None:
    """Draw figures of an encoder on test images, on one page.

    The page shows the corpus by anatomy (figure 1c), patch features and t-SNE (figure 3), the
    sampling points of ACDT for each anatomy, and reconstructions (figure 5) where the checkpoint
    has
    a decoder.

    Args:
        corpus: Folder of the corpus, or s3://bucket/prefix.
        checkpoint: Folder of the encoder.
        out: Folder of the page.
        against: Folder of a second encoder to compare with.

    Raises:
        ValueError: the corpus has no test images of the sources, or the encoders read images of
            other sizes.

    Writes:
        out

    Examples:
        arl figures --corpus data --checkpoint out/pretrain --against out/baselines/mae
    """
    watch = Stopwatch("arl figures")
    torch.set_num_threads(params.pretrain.threads)
    rows = select(corpus, sources=params.data.sources, protocols=params.data.splits)
    folders = {"A-ViT" if against else "encoder": checkpoint}
    if against:
        folders["the other"] = against
    encoders = {name: load_encoder(folder) for name, folder in folders.items()}
    sizes = {config.size for _, config in encoders.values()}
    # One batch of images feeds all encoders, so they need one size.
    if len(sizes) > 1:
        raise ValueError(
            f"{checkpoint} and {against} read images of {sorted(sizes)} pixels: make them read "
            f"the same"
        )
    test = rows[rows["split"] == "test"]
    if test.empty:
        raise ValueError(f"corpus {corpus} has no test images: there is nothing to show")
    size = sizes.pop()
    chosen = some(test, EACH, params.seed)
    networks = {name: encoder for name, (encoder, _) in encoders.items()}
    sections = [corpus_by_anatomy(rows), components(networks, corpus, chosen, size)]
    sections.append(planes(networks, corpus, chosen, size, params.seed))
    # Offsets are those of the encoder under study; a published one has no ACDT.
    first = next(iter(networks.values()))
    if has_offsets(first):
        assert isinstance(first, AViT)
        sections.append(offsets(first, corpus, chosen, size))
    # A published encoder comes without a decoder, so it reconstructs nothing.
    decoders = {
        name: load_reconstructor(folder)[0]
        for name, folder in folders.items()
        if has_reconstructor(folder)
    }
    if decoders:
        sections.append(reconstructions(decoders, corpus, chosen, size, params.seed))
    with atomic_directory(out) as folder:
        synthetic = float(rows["synthetic"].mean())
        subtitle = f"Encoder {checkpoint.name}, test images of {corpus.name}"
        write_figures(sections, synthetic, subtitle, watch.stamp(corpus), folder)
    console.info(f"Open {out / 'index.html'}.")
