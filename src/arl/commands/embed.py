"""Features of files, or of a corpus, as a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arl import console
from arl.corpus.anatomy import OTHER, anatomy_index
from arl.corpus.location import ReadableCorpus
from arl.corpus.manifest import read_manifest
from arl.files import atomic_file
from arl.inference.inputs import as_batch, read_all_inputs
from arl.loading.loader import Batch, Examples, evaluation_batches
from arl.models.encoder import Encoder
from arl.models.heads import Pooled
from arl.training.checkpoint import load_encoder
from arl.training.engine import predict

_BATCH = 64


def embed(
    files: list[Path],
    *,
    checkpoint: Path,
    out: Path,
    corpus: ReadableCorpus | None = None,
    anatomy: str = OTHER,
    pooling: Literal["gap", "cls"] = "gap",
) -> None:
    """Write the features of files, or of every image of a corpus, as a table.

    The parquet table has one row per image: `file`, `frame` and `region`, or the `id` of the
    corpus,
    and `features`. Give either files or --corpus.

    Args:
        files: DICOM, image or video files.
        checkpoint: Folder of an encoder, of `arl pretrain` or `arl baseline`.
        out: The parquet table.
        corpus: Folder of a corpus, in place of files.
        anatomy: Anatomy of the files. `other` gives the model no anatomy.
        pooling: Features: gap, the mean of the patch tokens, or cls, the CLS token.

    Raises:
        ValueError: neither files nor a corpus or both, a file that cannot be used, or an unknown
            anatomy.

    Writes:
        out

    Examples:
        arl embed scans/*.dcm --checkpoint out/pretrain --anatomy breast --out features.parquet
        arl embed --corpus data --checkpoint out/pretrain --out features.parquet
    """
    if bool(files) == (corpus is not None):
        raise ValueError("name files, or a --corpus: one of the two")
    # A wrong anatomy is an error before the weights are loaded.
    anatomy_index(anatomy)
    encoder, config = load_encoder(checkpoint)
    if corpus is not None:
        rows = read_manifest(corpus)
        batches = evaluation_batches(Examples(corpus, rows, config.size, stretched=True), _BATCH)
        table = pd.DataFrame(
            {"id": rows["id"], "features": _features(encoder, batches, config.size, pooling)}
        )
    else:
        table = _of_files(encoder, files, config.size, anatomy, pooling)
    with atomic_file(out) as partial:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), partial)
    console.info(f"{out}: {len(table)} rows of {encoder.embed_dim} features")


def _features(
    encoder: Encoder, batches: Iterator[Batch], size: int, pooling: str
) -> list[npt.NDArray[np.float32]]:
    outputs = predict(Pooled(encoder, pooling), batches, size=size)
    return [np.asarray(row) for _, pooled in outputs for row in pooled.float().numpy()]


def _of_files(
    encoder: Encoder, files: list[Path], size: int, anatomy: str, pooling: str
) -> pd.DataFrame:
    tables = []
    # One bad file stops the command: a table with gaps would be joined by row.
    for file, pictures in zip(files, read_all_inputs(files, size, anatomy), strict=True):
        if isinstance(pictures, str):
            raise ValueError(f"{file.name} cannot be used: {pictures}")
        features = _features(encoder, iter([as_batch(pictures, anatomy)]), size, pooling)
        origins = {
            "frame": [one.frame for one in pictures],
            "region": [one.region for one in pictures],
        }
        tables.append(pd.DataFrame({"file": file.name, **origins, "features": features}))
    return pd.concat(tables, ignore_index=True)
