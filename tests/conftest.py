"""A corpus of a few dozen little images and parameters that fit it, for the tests of stages."""

from pathlib import Path

import numpy as np
import pytest

from arl import params as parameters
from arl.data.shards import BatchWriter

ROOT = Path(__file__).parent.parent
TINY = [
    "data.size=32",
    "model.embed_dim=24",
    "model.depth=4",
    "model.num_heads=3",
    "model.patch_size=8",
    "model.anatomy_hidden=8",
    "objective.local_crops_size=16",
    "objective.prototypes=16",
    "objective.decoder_dim=16",
    "objective.decoder_depth=1",
    "objective.decoder_heads=2",
    "objective.discriminator_dim=4",
    "pretrain.batch_size=8",
    "pretrain.max_steps=3",
    "pretrain.checkpoint_every=2",
    "pretrain.threads=1",
    "finetune.batch_size=8",
    "finetune.epochs=1",
    "evaluate.bootstrap=50",
    "gate.bootstrap=50",
    "tasks=[breast,lv]",
]


@pytest.fixture
def tiny_params() -> parameters.Params:
    """params.yaml at a scale of seconds, with a classification and a segmentation task."""
    return parameters.load(TINY, ROOT / "params.yaml")


def _picture(rng: np.random.Generator, bright: bool) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a disc, brighter or darker than its surroundings, and the disc's mask."""
    rows, columns = np.mgrid[:40, :48]
    centre = rng.uniform(14, 26, 2)
    mask = np.hypot(rows - centre[0], columns - centre[1]) < 9
    level = 60 + 90 * (mask if bright else ~mask)
    return rng.normal(level, 15).clip(0, 255).astype(np.uint8), mask


def write_batch(corpus: Path, source: str, *, patients: int = 30, batch: str = "0000", seed: int = 0) -> None:
    """Two images of each patient: breast with a label, heart with a mask of the left ventricle."""
    rng = np.random.default_rng(seed)
    with BatchWriter(corpus, source, batch, 64, licence="none", citation="tests") as writer:
        for patient in range(patients):
            split = ("train", "train", "train", "val", "test")[patient % 5]
            malignant = bool((patient // 5) % 2)
            common = {"patient": f"p{batch}{patient}", "device": f"scanner {patient % 2}", "probe": "linear"}
            image, _ = _picture(rng, malignant)
            label = "malignant" if malignant else "benign"
            writer.accept(
                image, key=f"{batch}-b{patient}", anatomy="breast", label=label, splits={"default": split}, **common
            )
            image, mask = _picture(rng, True)
            writer.accept(
                image,
                mask=mask,
                mask_name="lv",
                key=f"{batch}-c{patient}",
                anatomy="cardiac",
                splits={"default": split},
                **common,
            )


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of 30 patients from one source, `clinic`."""
    corpus = tmp_path_factory.mktemp("corpus") / "data"
    write_batch(corpus, "clinic")
    return corpus
