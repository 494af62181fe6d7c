"""The stage writes its page in every case, and stops the pipeline on a critical rule only."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arl.corpus.checks.findings import SEVERITIES
from arl.corpus.checks.result import ValidationResult
from arl.corpus.manifest import SCHEMA, read_table
from arl.files import tree_hash
from arl.params import Params
from arl.stages.validate import validate


@pytest.fixture
def corpus(tiny_corpus: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_corpus, tmp_path / "corpus")


def damage(corpus: Path, column: str, value: object) -> None:
    file = corpus / "clinic/0000/manifest.parquet"
    rows = read_table(file, SCHEMA)
    rows.loc[3, column] = value
    pq.write_table(pa.Table.from_pandas(rows, SCHEMA, preserve_index=False), file)


def read(folder: Path) -> ValidationResult:
    return ValidationResult.read(folder / ValidationResult.FILE)


def test_a_sound_corpus_passes(
    tiny_params: Params, corpus: Path, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    validate(tiny_params, corpus=corpus, validation=tmp_path / "out")
    result = read(tmp_path / "out")
    assert result.passed
    assert not any(result.failed(severity) for severity in SEVERITIES)
    assert len(result.rules) >= 12
    for width in (1280, 390):
        opened = open_page(tmp_path / "out/index.html", width)
        assert (opened.errors, opened.requests, opened.overflow) == ([], [], 0)
    assert "Passed" in opened.text


def test_the_result_names_the_version_of_the_corpus(
    tiny_params: Params, corpus: Path, tmp_path: Path
) -> None:
    def version(name: str) -> str:
        validate(tiny_params, corpus=corpus, validation=tmp_path / name)
        return read(tmp_path / name).corpus_version

    first = version("first")
    (corpus / "notes.txt").write_text("not part of it")
    assert version("again") == first
    damage(corpus, "label", "benign")
    assert version("relabelled") != first


def test_a_critical_rule_stops_with_a_sentence_and_leaves_the_page(
    tiny_params: Params, corpus: Path, tmp_path: Path
) -> None:
    damage(corpus, "anatomy", "<knee>")
    message = (
        r"corpus .*corpus breaks rule anatomy-known: .*; "
        r"1 of 60 do not, e\.g\. clinic:.*out/index\.html"
    )
    with pytest.raises(ValueError, match=message):
        validate(tiny_params, corpus=corpus, validation=tmp_path / "out")
    result = read(tmp_path / "out")
    assert not result.passed
    assert [rule.rule for rule in result.failed("critical")] == ["anatomy-known"]
    page = (tmp_path / "out/index.html").read_text()
    assert "failed" in page
    assert "clinic:" in page


def test_a_warning_stops_nothing(tiny_params: Params, corpus: Path, tmp_path: Path) -> None:
    damage(corpus, "depth_cm", 120.0)
    validate(tiny_params, corpus=corpus, validation=tmp_path / "out")
    result = read(tmp_path / "out")
    assert result.passed
    assert [len(result.failed(severity)) for severity in SEVERITIES] == [0, 1, 0]


def test_a_rerun_writes_the_same_bytes(tiny_params: Params, corpus: Path, tmp_path: Path) -> None:
    damage(corpus, "depth_cm", 120.0)
    damage(corpus, "pixel_spacing_mm", 7.0)
    hashes = set()
    for _ in range(2):
        validate(tiny_params, corpus=corpus, validation=tmp_path / "out")
        hashes.add(tree_hash(tmp_path / "out"))
    assert len(hashes) == 1


def test_a_missing_corpus_is_named(tiny_params: Params, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        validate(tiny_params, corpus=tmp_path / "nowhere", validation=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_quarantine_reasons_are_on_the_page(
    tiny_params: Params, corpus: Path, tmp_path: Path
) -> None:
    file = corpus / "clinic/0000/quarantine.parquet"
    schema = pq.read_schema(file)
    refused = pd.DataFrame([["clinic", "0000", "a.dcm", "no pixel data <b>"]], columns=schema.names)
    pq.write_table(pa.Table.from_pandas(refused, schema, preserve_index=False), file)
    counts = corpus / "clinic/0000/batch.json"
    about = json.loads(counts.read_text())
    counts.write_text(json.dumps({**about, "num_inputs": about["num_inputs"] + 1, "refused": 1}))
    validate(tiny_params, corpus=corpus, validation=tmp_path / "out")
    assert "no pixel data &lt;b&gt;" in (tmp_path / "out/index.html").read_text()
