"""batch.json is read by the version that wrote it, or not at all."""

import json
from pathlib import Path

import pytest

from arl.corpus.batch_summary import BATCH_FILE, BatchOrigin, BatchSummary

SUMMARY = BatchSummary(
    source="north",
    batch="0000",
    num_inputs=2,
    accepted=1,
    refused=1,
    images=3,
    thinned=0,
    store_size=256,
    origin=BatchOrigin(licence="CC-BY", citation="none"),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    SUMMARY.write(tmp_path)
    assert BatchSummary.read(tmp_path) == SUMMARY
    # Version 1 carries no key: batches of earlier releases keep their bytes.
    assert "version" not in json.loads((tmp_path / BATCH_FILE).read_text())


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    SUMMARY.write(tmp_path)
    content = json.loads((tmp_path / BATCH_FILE).read_text()) | {"version": 2}
    (tmp_path / BATCH_FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has version 2, this release of ARL reads 1"):
        BatchSummary.read(tmp_path)


def test_a_missing_field_names_the_file(tmp_path: Path) -> None:
    SUMMARY.write(tmp_path)
    content = json.loads((tmp_path / BATCH_FILE).read_text())
    del content["images"]
    (tmp_path / BATCH_FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=BATCH_FILE):
        BatchSummary.read(tmp_path)
