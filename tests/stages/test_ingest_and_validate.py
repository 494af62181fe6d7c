"""What ingest accepts, validate accepts: a property over generated stills and clips."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from arl.corpus.batch_summary import BatchOrigin, BatchSummary
from arl.corpus.checks.invariants import check_corpus
from arl.corpus.shard_writer import BatchWriter
from arl.ingest.batches import write_inputs
from arl.ingest.readers import folder

STORE_SIZES = (64, 512, 8192)


@dataclass(frozen=True)
class Picture:
    """A generated frame: its size, and the level and the spread of its noise."""

    height: int
    width: int
    level: float
    spread: float
    coloured: bool
    seed: int

    def pixels(self, height: int = 0, width: int = 0) -> np.ndarray:
        shape = (height or self.height, width or self.width, 3 if self.coloured else 1)
        noise = np.random.default_rng(self.seed).normal(self.level, self.spread, shape)
        return np.repeat(noise, 3 // shape[2], axis=2).clip(0, 255).astype(np.uint8)


# Around every limit of `arl.corpus.limits`: sides, mean levels and spreads.
PICTURES = st.builds(
    Picture,
    height=st.sampled_from([1, 31, 32, 33, 64, 300, 4095, 4097]),
    width=st.sampled_from([1, 31, 32, 33, 64, 300, 4200]),
    level=st.sampled_from([0.0, 0.5, 1.0, 1.5, 40.0, 128.0, 248.0, 250.0, 255.0]),
    spread=st.sampled_from([0.0, 1.0, 2.0, 2.5, 20.0]),
    coloured=st.booleans(),
    seed=st.integers(0, 3),
)
CLIPS = st.lists(PICTURES, min_size=1, max_size=4)


def write(root: Path, stills: list[Picture], clips: list[list[Picture]]) -> None:
    """A folder set of one class: a PNG for each still, a GIF for each clip."""
    (root / "benign").mkdir(parents=True)
    for number, still in enumerate(stills):
        cv2.imwrite(str(root / f"benign/{number}.png"), still.pixels())
    for number, clip in enumerate(clips):
        first, *rest = (
            Image.fromarray(frame.pixels(min(clip[0].height, 300), min(clip[0].width, 300)))
            for frame in clip
        )
        first.save(root / f"benign/clip{number}.gif", save_all=True, append_images=rest)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    stills=st.lists(PICTURES, min_size=1, max_size=5),
    clips=st.lists(CLIPS, max_size=2),
    store_size=st.sampled_from(STORE_SIZES),
)
def test_no_accepted_image_breaks_a_critical_rule(
    stills: list[Picture], clips: list[list[Picture]], store_size: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, corpus = Path(name, "set"), Path(name, "data")
        write(root, stills, clips)
        inputs = folder.read(root, anatomy="breast")
        origin = BatchOrigin(licence="-", citation="-")
        with BatchWriter(corpus, "ours", "0000", store_size, origin=origin) as writer:
            write_inputs(inputs, writer)
        summary = BatchSummary.read(corpus / "ours/0000")
        assert summary.accepted + summary.refused == len(stills) + len(clips)
        if not summary.images:
            return
        withheld = pd.DataFrame({"id": pd.Series(dtype=str)})
        broken = [
            finding.rule
            for finding in check_corpus(corpus, {}, withheld)
            if finding.severity == "critical" and not finding.passed
        ]
        assert broken == []
