"""Pictures of what an encoder has learned: the paper's figures 1c and 3, and the offsets of ACDT."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from markupsafe import Markup
from torch import Tensor

from arl import pages
from arl.data.anatomy import NULL_ANATOMY, NUM_ANATOMIES, OTHER, anatomy_index
from arl.data.loader import Batch, Examples
from arl.data.selection import select
from arl.data.views import eval_view
from arl.evaluation import figures as drawings
from arl.evaluation.figures import Panel
from arl.evaluation.maps import inside, offset_fields, patch_maps, plane, principal_colours, separation
from arl.evaluation.metrics import Bools, Floats, Ints
from arl.files import atomic_directory
from arl.models.avit import AViT
from arl.models.encoder import Encoder
from arl.params import Params
from arl.training.checkpoint import load_encoder

Singles = npt.NDArray[np.float32]

_EACH = 40  # images of an anatomy for t-SNE
_ROWS = 8  # anatomies in a picture
_BATCH = 64


def figures(
    params: Params, *, corpus: Path, checkpoint: Path, out: Path = Path("out/figures"), against: Path | None = None
) -> None:
    """Pictures of an encoder on test images, on one page.

    The corpus by anatomy (the paper's figure 1c); principal components of the patch features and t-SNE of the images
    (figure 3), beside those of the encoder --against, e.g. an imported baseline; where ACDT samples, for each anatomy
    that it may be told. As the anatomy is an input, t-SNE by anatomy is drawn with the given, with no and with a wrong
    label.

    Raises:
        ValueError: the corpus has no test images of the sources, or the encoders read images of other sizes.
    """
    torch.set_num_threads(params.pretrain.threads)
    rows = select(corpus, sources=params.data.sources, protocols=params.data.splits)
    encoders = {"A-ViT" if against else "encoder": load_encoder(checkpoint)}
    if against is not None:
        encoders["the other"] = load_encoder(against)
    sizes = {config["size"] for _, config in encoders.values()}
    if len(sizes) > 1:
        raise ValueError(f"{checkpoint} and {against} read images of {sorted(sizes)} pixels: make them read the same")
    test = rows[rows["split"] == "test"]
    if test.empty:
        raise ValueError(f"corpus {corpus} has no test images: there is nothing to show")
    size = sizes.pop()
    chosen = _some(test, _EACH, params.seed)
    networks = {name: encoder for name, (encoder, _) in encoders.items()}
    body = _warning(rows) + pages.section("Corpus by anatomy", _corpus(rows))
    body += pages.section("Principal components of patch features", _components(networks, corpus, chosen, size))
    body += pages.section("Images on a plane", _planes(networks, corpus, chosen, size, params.seed))
    first = next(iter(networks.values()))
    if isinstance(first, AViT) and first.blocks and hasattr(first.blocks[0], "deform"):
        body += pages.section("Where ACDT samples", _offsets(first, corpus, chosen, size))
    with atomic_directory(out) as folder:
        page = pages.page("What the encoder sees", body, subtitle=f"{checkpoint}, test images of {corpus}")
        (folder / "index.html").write_text(page, encoding="utf-8")
    print(out / "index.html")


def _warning(rows: pd.DataFrame) -> Markup:
    synthetic = rows["synthetic"].mean()
    text = f"{synthetic:.0%} of the images are synthetic: what is seen of them is no finding about patients."
    return pages.note(text, "warn") if synthetic else Markup("")


def _some(rows: pd.DataFrame, each: int, seed: int) -> pd.DataFrame:
    """At most so many images of every anatomy."""
    shuffled = rows.sample(frac=1, random_state=seed)
    return shuffled[shuffled.groupby("anatomy").cumcount() < each].sort_values("anatomy").reset_index(drop=True)


def _first_of_each(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop_duplicates("anatomy").head(_ROWS).reset_index(drop=True)


def _corpus(rows: pd.DataFrame) -> Markup:
    counts = rows["anatomy"].value_counts()
    drawing = drawings.bars([(str(name), int(count)) for name, count in counts.items()], title="images by anatomy")
    return pages.figure(drawing, "All images of the sources, every split.", "Number of images of each anatomy")


def _images(corpus: Path, rows: pd.DataFrame, size: int) -> tuple[Batch, Tensor]:
    batch = Examples(corpus, rows, size).take(np.arange(len(rows)))
    return batch, eval_view(batch, size).image


def _components(networks: dict[str, Encoder], corpus: Path, rows: pd.DataFrame, size: int) -> Markup:
    rows = _first_of_each(rows)
    batch, image = _images(corpus, rows, size)
    colours = {}
    for name, encoder in networks.items():
        maps = patch_maps(encoder, image, batch.anatomy)
        colours[name] = principal_colours(maps, inside(batch.extent.numpy(), size, maps.shape[1]))
    grid = [
        [Panel(batch.image[i, 0].numpy(), str(anatomy)), *(Panel(of[i], name) for name, of in colours.items())]
        for i, anatomy in enumerate(rows["anatomy"])
    ]
    caption = "The first three components as red, green and blue: one basis for all images of an encoder."
    return pages.figure(drawings.panels(grid), caption, "Principal components of patch features")


def _planes(networks: dict[str, Encoder], corpus: Path, rows: pd.DataFrame, size: int, seed: int) -> Markup:
    examples = Examples(corpus, rows, size)
    groups = [str(name) for name in rows["anatomy"]]
    if len(rows) < 10 or len(set(groups)) < 2:
        return pages.paragraph(f"{len(rows)} test images of {len(set(groups))} anatomies are too few to lay out.")
    shown = []
    for name, encoder in networks.items():
        for told in ("given", "no", "wrong") if isinstance(encoder, AViT) else ("given",):
            features = _features(encoder, examples, size, told, seed)
            title = f"{name}, {told} anatomy: silhouette {separation(features, groups):.2f}"
            drawing = drawings.scatter(plane(features, seed), groups, title=title)
            shown.append(pages.figure(drawing, "t-SNE; the silhouette is of the features themselves.", title))
    return pages.gallery(shown)


def _features(encoder: Encoder, examples: Examples, size: int, told: str, seed: int) -> Floats:
    """Mean patch tokens (n, C)."""
    parts = []
    for start in range(0, len(examples), _BATCH):
        batch = examples.take(np.arange(start, min(start + _BATCH, len(examples))))
        anatomy = torch.from_numpy(_told(batch.anatomy.numpy(), told, seed))
        maps = patch_maps(encoder, eval_view(batch, size).image, anatomy)
        parts.append(maps.mean(axis=(1, 2)))
    return np.concatenate(parts).astype(np.float64)


def _told(truth: Ints, told: str, seed: int) -> Ints:
    if told == "given":
        return truth
    if told == "no":
        return np.full_like(truth, NULL_ANATOMY)
    shift = np.random.default_rng(seed).integers(1, NUM_ANATOMIES, len(truth))
    return (truth + shift) % NUM_ANATOMIES


def _offsets(encoder: AViT, corpus: Path, rows: pd.DataFrame, size: int) -> Markup:
    """One image of each anatomy, told its own anatomy, none, and another one."""
    rows = _first_of_each(rows)
    batch, image = _images(corpus, rows, size)
    names = [str(name) for name in rows["anatomy"]]
    others = names[1:] + names[:1]
    grid = [[Panel(batch.image[i, 0].numpy(), name)] for i, name in enumerate(names)]
    for told in (names, [OTHER] * len(names), others):
        anatomy = torch.tensor([anatomy_index(name) for name in told])
        mean = offset_fields(encoder, image, anatomy).mean(axis=(0, 4))  # over blocks and taps: (B, h, w, 2)
        for i, row in enumerate(grid):
            where = inside(batch.extent[i : i + 1].numpy(), size, mean.shape[1])[0]
            label = "no anatomy" if told[i] == OTHER else f"as {told[i]}"
            arrows = _arrows(mean[i], where, encoder.patch_size)
            row.append(Panel(batch.image[i, 0].numpy(), f"{label}, mean {_reach(mean[i], where):.2f}", arrows=arrows))
    caption = (
        "Mean offset of the deformable kernels over blocks and taps, from each patch's centre, in the image's own "
        "scale; the number is its mean length in patches. Training starts with none."
    )
    return pages.figure(drawings.panels(grid), caption, "Offsets of ACDT by anatomy")


def _arrows(field: Singles, where: Bools, patch: int) -> tuple[Floats, Floats]:
    tails = np.asarray((np.argwhere(where) + 0.5) * patch, np.float64)
    return tails, np.asarray(tails + field[where] * patch, np.float64)


def _reach(field: Singles, where: Bools) -> float:
    return float(np.linalg.norm(field[where], axis=-1).mean())
