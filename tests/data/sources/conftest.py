"""What the tests of readers share: real little videos, and the way into a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from arl.data import manifest
from arl.data.shards import BatchWriter
from arl.data.sources import write
from arl.files import read_json


@dataclass(frozen=True)
class Ingested:
    """A batch that a reader's inputs ended in."""

    corpus: Path
    rows: pd.DataFrame
    refused: dict[str, str]  # input -> reason
    about: dict[str, Any]


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., Ingested]:
    """Read a root and write its inputs into a batch; every input ends as one or the other."""

    def ingest_(module: ModuleType, root: Path, **options: Any) -> Ingested:
        inputs = module.read(root, **options)
        corpus = tmp_path / "data"
        with BatchWriter(corpus, "source", "0000", 512, licence="", citation="") as writer:
            write(inputs, writer)
        refused = manifest.read_quarantine(corpus)
        about = read_json(corpus / "source/0000/batch.json")
        assert about["accepted"] + about["refused"] == about["given"] == len(inputs)
        assert len(refused) == about["refused"]
        return Ingested(corpus, manifest.read_manifest(corpus), dict(refused[["input", "reason"]].values), about)

    return ingest_


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """Write a grey video whose frame k has the level 20 + 10 k, and return its path."""

    def make(file: Path, frames: int = 5, height: int = 48, width: int = 64, codec: str = "MJPG") -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 25, (width, height))
        assert writer.isOpened()
        for number in range(frames):
            picture = np.full((height, width, 3), 20 + 10 * number, np.uint8)
            picture[: height // 4, : width // 4] = 200  # top left
            writer.write(picture)
        writer.release()
        return file

    return make
