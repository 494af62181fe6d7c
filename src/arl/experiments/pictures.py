"""Sections of an experiment beside its tables: corpus, features, offsets, pictures and costs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from arl.corpus.anatomy import NULL_ANATOMY, NUM_ANATOMIES, OTHER, anatomy_index
from arl.corpus.splits import groups
from arl.evaluation.maps import offset_fields, patch_maps, plane, principal_colours, separation
from arl.evaluation.metrics import Floats, Ints
from arl.evaluation.panels import Grid, Panel, Scatter, Section
from arl.evaluation.reconstruction import completed, masks, seen, speckle
from arl.evaluation.results import Interval
from arl.loading.loader import Batch, Examples
from arl.loading.transforms import denormalize, eval_view
from arl.models.avit import AViT
from arl.models.cost import count_macs, count_parameters, latency, paper_models
from arl.models.encoder import Encoder
from arl.models.reconstructor import Reconstructor

Singles = npt.NDArray[np.float32]

EACH = 40  # images of an anatomy for t-SNE
_ROWS = 8  # anatomies in a picture
_BATCH = 64
_MEASURED = 128  # images for the statistics of speckle
_MASK_RATIO = 0.75
_GREY = 255.0


def some(rows: pd.DataFrame, each: int, seed: int) -> pd.DataFrame:
    """At most so many images of every anatomy."""
    # A clip's frames follow each other; the first rows would be one patient.
    shuffled = rows.sample(frac=1, random_state=seed)
    return (
        shuffled[shuffled.groupby("anatomy").cumcount() < each]
        .sort_values("anatomy")
        .reset_index(drop=True)
    )


def _first_of_each(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop_duplicates("anatomy").head(_ROWS).reset_index(drop=True)


def corpus_by_anatomy(rows: pd.DataFrame) -> Section:
    """The paper's figure 1c: images of each anatomy."""
    counts = [(str(name), int(count)) for name, count in rows["anatomy"].value_counts().items()]
    rows_of_table = [[name, f"{count:,}", f"{count / len(rows):.1%}"] for name, count in counts]
    return Section(
        "Corpus by anatomy",
        counts=counts,
        columns=["anatomy", "images", "share"],
        rows=rows_of_table,
        caption="All images of the sources, every split.",
    )


def _images(corpus: Path, rows: pd.DataFrame, size: int) -> tuple[Batch, Tensor]:
    batch = Examples(corpus, rows, size, stretched=True).take(np.arange(len(rows)))
    return batch, eval_view(batch, size).image


# --- features --------------------------------------------------------------------------------


def components(
    networks: Mapping[str, Encoder], corpus: Path, rows: pd.DataFrame, size: int
) -> Section:
    """Figure 3: principal components of patch features, one image of each anatomy."""
    rows = _first_of_each(rows)
    batch, image = _images(corpus, rows, size)
    colours = {}
    for name, encoder in networks.items():
        maps = patch_maps(encoder, image, batch.anatomy)
        colours[name] = principal_colours(maps)
    grid = [
        [
            Panel(batch.image[i, 0].numpy(), str(anatomy)),
            *(Panel(of[i], name) for name, of in colours.items()),
        ]
        for i, anatomy in enumerate(rows["anatomy"])
    ]
    caption = (
        "The first three components as red, green and blue: one basis for all images of an encoder."
    )
    title = "Principal components of patch features"
    return Section(title, grid=Grid(grid, caption))


def planes(
    networks: Mapping[str, Encoder], corpus: Path, rows: pd.DataFrame, size: int, seed: int
) -> Section:
    """Figure 3(e): t-SNE by anatomy, also with no anatomy and with a wrong one as input."""
    title = "Images on a plane"
    examples = Examples(corpus, rows, size, stretched=True)
    anatomies = [str(name) for name in rows["anatomy"]]
    # t-SNE needs more points than its perplexity, and a silhouette two groups.
    if len(rows) < 10 or len(set(anatomies)) < 2:
        return Section(title, remark=f"{len(rows)} test images are too few to lay out.")
    scatters, values = [], []
    for name, encoder in networks.items():
        for given_anatomy in ("given", "no", "wrong") if isinstance(encoder, AViT) else ("given",):
            features = _features(encoder, examples, size, given_anatomy, seed)
            value = f"{separation(features, anatomies):.2f}"
            heading = f"{name}, {given_anatomy} anatomy: silhouette {value}"
            scatters.append(Scatter(plane(features, seed), anatomies, heading))
            values.append([name, given_anatomy, value])
    return Section(
        title,
        scatters=scatters,
        columns=["encoder", "anatomy input", "silhouette by anatomy"],
        rows=values,
        caption="Points: t-SNE. The silhouette is of the features themselves.",
    )


def _features(
    encoder: Encoder, examples: Examples, size: int, given_anatomy: str, seed: int
) -> Floats:
    """Mean patch tokens (n, C)."""
    parts = []
    for start in range(0, len(examples), _BATCH):
        batch = examples.take(np.arange(start, min(start + _BATCH, len(examples))))
        anatomy = torch.from_numpy(_anatomy_input(batch.anatomy.numpy(), given_anatomy, seed))
        maps = patch_maps(encoder, eval_view(batch, size).image, anatomy)
        parts.append(maps.mean(axis=(1, 2)))
    return np.concatenate(parts).astype(np.float64)


def _anatomy_input(truth: Ints, given_anatomy: str, seed: int) -> Ints:
    if given_anatomy == "given":
        return truth
    if given_anatomy == "no":
        return np.full_like(truth, NULL_ANATOMY)
    # A shift of at least one, so that no image keeps its own anatomy.
    shift = np.random.default_rng(seed).integers(1, NUM_ANATOMIES, len(truth))
    return (truth + shift) % NUM_ANATOMIES


# --- ACDT ------------------------------------------------------------------------------------


def has_offsets(encoder: Encoder) -> bool:
    """Whether it is an A-ViT with ACDT."""
    return (
        isinstance(encoder, AViT) and bool(encoder.blocks) and hasattr(encoder.blocks[0], "deform")
    )


def offsets(encoder: AViT, corpus: Path, rows: pd.DataFrame, size: int) -> Section:
    """Where ACDT samples, with the image's own anatomy, none and another one as input."""
    rows = _first_of_each(rows)
    batch, image = _images(corpus, rows, size)
    names = [str(name) for name in rows["anatomy"]]
    next_names = names[1:] + names[:1]
    grid = [[Panel(batch.image[i, 0].numpy(), name)] for i, name in enumerate(names)]
    for anatomies in (names, [OTHER] * len(names), next_names):
        anatomy = torch.tensor([anatomy_index(name) for name in anatomies])
        # Over blocks and taps: (B, h, w, 2).
        mean = offset_fields(encoder, image, anatomy).mean(axis=(0, 4))
        for i, row in enumerate(grid):
            label = "no anatomy" if anatomies[i] == OTHER else f"as {anatomies[i]}"
            arrows = _arrows(mean[i], encoder.patch_size)
            row.append(
                Panel(
                    batch.image[i, 0].numpy(), f"{label}, mean {_reach(mean[i]):.2f}", arrows=arrows
                )
            )
    caption = (
        "Mean offset of the deformable kernels over blocks and taps, from each patch's centre, in"
        " the image's own "
        "scale; the number is its mean length in patches. Training starts with none."
    )
    return Section("Where ACDT samples", grid=Grid(grid, caption))


def _arrows(field: Singles, patch: int) -> tuple[Floats, Floats]:
    centres = np.indices(field.shape[:2]).reshape(2, -1).T
    tails = np.asarray((centres + 0.5) * patch, np.float64)
    return tails, np.asarray(tails + field.reshape(-1, 2) * patch, np.float64)


def _reach(field: Singles) -> float:
    return float(np.linalg.norm(field, axis=-1).mean())


# --- reconstructions -------------------------------------------------------------------------


def reconstructions(
    models: Mapping[str, Reconstructor], corpus: Path, rows: pd.DataFrame, size: int, seed: int
) -> Section:
    """Figure 5: the same masked images as each method completes them, and their speckle.

    Raises:
        ValueError: the test images have fewer than two patients.
    """
    title = "Masked images, completed"
    chosen = rows.sample(frac=1, random_state=seed).head(_MEASURED).reset_index(drop=True)
    patients = groups(chosen).to_numpy(str)
    batch, image = _images(corpus, chosen, size)
    truth = _grey(image)
    patch = next(iter(models.values())).encoder.patch_size
    masking = masks(len(image), (size // patch) ** 2, _MASK_RATIO, seed)
    completions = {
        name: _grey(completed(model, image, batch.anatomy, masking))
        for name, model in models.items()
    }
    hidden = seen(truth, masking, patch)
    grid = []
    for i in chosen.drop_duplicates("anatomy").index[:_ROWS]:
        row = {str(chosen["anatomy"][i]): truth, f"masked {_MASK_RATIO:.0%}": hidden, **completions}
        grid.append([Panel(picture[i], name) for name, picture in row.items()])
    caption = "The same patches hidden for all; what is not hidden is the image itself."
    table = [
        [name, *map(_interval, (one.error, one.spectrum, one.snr))]
        for name, picture in completions.items()
        for one in [speckle(picture, truth, patients, seed=seed)]
    ]
    columns = ["method", "RMSE, grey levels", "spectrum distance, dB", "local SNR less the image's"]
    explained = (
        f"Means over {len(truth)} test images, with 95 % intervals over patients. A blurred"
        " picture has a large "
        "distance of the radial spectra and a higher local SNR than the image; the nearer to 0,"
        " the nearer its speckle."
    )
    return Section(title, grid=Grid(grid, caption), columns=columns, rows=table, caption=explained)


def _grey(image: Tensor) -> Floats:
    """Grey levels (n, S, S) of normalised images."""
    return np.asarray(
        (denormalize(image)[:, 0] * _GREY).clamp(0, _GREY).double().numpy(), np.float64
    )


def _interval(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


# --- cost ------------------------------------------------------------------------------------


def cost(repeats: int) -> Section:
    """Table 10: parameters, multiply-accumulates and latency of ViT-B/16 and A-ViT-B."""
    models = {name: model for name, model in paper_models().items() if name != "plain"}
    times = latency(models, 1, repeats)
    rows = []
    for name, label, claimed in (
        ("vit", "ViT-B/16 (timm)", ["86M", "17.58G", "12.1"]),
        ("avit", "A-ViT-B/16", ["95M", "17.66G", "16.6"]),
        ("folded", "A-ViT-B/16, one anatomy folded in", ["", "", ""]),
    ):
        parameters = count_parameters(models[name])
        macs = count_macs(models[name], (1, 3, 224, 224))
        measured = [f"{parameters / 1e6:.2f}M", f"{macs / 1e9:.3f}G", f"{times[name] * 1e3:.1f}"]
        rows.append(
            [label, *(word for pair in zip(measured, claimed, strict=True) for word in pair)]
        )
    columns = ["model", "parameters", "claimed", "MACs", "claimed", "ms an image", "claimed"]
    explained = (
        f"Images of 224 pixels in three channels, batch 1, median of {repeats}, in turns, CPU"
        " threads: "
        f"{torch.get_num_threads()}; the paper's milliseconds are of an RTX 4090. Its FLOPs are "
        f"multiply-accumulates. Measured ratio {times['avit'] / times['vit']:.2f}, claimed 1.37."
    )
    return Section("Cost", columns=columns, rows=rows, caption=explained)
