"""Every rule has a corpus that breaks it, and only it."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arl.data import validation
from arl.data.manifest import SCHEMA, read_manifest
from arl.data.shards import BatchWriter
from arl.data.validation import Finding, check_files, check_rows, check_splits, read_splits, validate_corpus

Damage = Callable[[pd.DataFrame], None]


def fill(batch: BatchWriter, seed: int, *, synthetic: bool = False) -> None:
    random = np.random.default_rng(seed)
    for i in range(6):
        image = random.integers(0, 256, (37, 53), dtype=np.uint8)
        mask = image > 99
        batch.accept(
            image, key=f"k{i}", anatomy="breast", probe="linear", patient=f"p{i // 2}", clip=f"c{i // 2}", frame=i % 2,
            label="benign", mask=mask, mask_name="lesion", pixel_spacing_mm=0.1, depth_cm=4.0, synthetic=synthetic,
        )  # fmt: skip
    batch.refuse("broken.dcm", "not a DICOM file")


def make(corpus: Path) -> Path:
    with BatchWriter(corpus, "clinic", "0000", 64, licence="CC0", citation="none") as batch:
        fill(batch, 2)
    with BatchWriter(corpus, "phantom-breast", "0000", 64, licence="CC0", citation="none") as batch:
        fill(batch, 3, synthetic=True)
    return corpus


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read_manifest(make(tmp_path_factory.mktemp("corpus")))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make(tmp_path / "corpus")


def failing(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if not finding.passed}


def put(column: str, value: object, row: int = 1) -> Damage:
    def damage(rows: pd.DataFrame) -> None:
        rows.loc[row, column] = value

    return damage


def enlarge(side: str) -> Damage:
    return lambda rows: rows.__setitem__(f"original_{side}", rows[side] - 1)


def share_place(rows: pd.DataFrame) -> None:
    rows.loc[1, "row"] = rows.loc[0, "row"]


BAD_MANIFESTS: dict[str, Damage] = {
    "rows": lambda rows: rows.drop(rows.index, inplace=True),
    "id-present": put("id", None),
    "id-unique": put("id", "clinic:k0"),
    "id-form": put("id", "k1"),
    "patient-form": put("patient", "p1"),
    "site-present": put("site", " "),
    "place-unique": share_place,
    "shard-form": put("shard", "shard-1.parquet"),
    "row-range": put("row", -1),
    "patient-known": put("patient", None),
    "anatomy-known": put("anatomy", "Breast"),
    "probe-known": put("probe", "matrix"),
    "synthetic-source": put("synthetic", True),
    "phantom-marked": put("synthetic", False, row=7),
    "height-range": put("height", 31),
    "width-range": put("width", 31),
    "height-never-up": enlarge("height"),
    "width-never-up": enlarge("width"),
    "mean-range": put("mean", 0.0),
    "std-range": put("std", 0.5),
    "hash-form": put("pixel_sha256", "0F" * 32),
    "pixels-unique": lambda rows: rows.__setitem__("pixel_sha256", rows.loc[0, "pixel_sha256"]),
    "spacing-range": put("pixel_spacing_mm", 10.0),
    "depth-range": put("depth_cm", 120.0),
    "frame-range": put("frame", -1),
    "clip-named": put("clip", None),
    "label-form": put("label", "benign "),
    "mask-form": put("mask", "Lesion"),
}


def test_a_clean_manifest_passes(clean: pd.DataFrame) -> None:
    findings = check_rows(clean)
    assert failing(findings) == set()
    assert {finding.rule for finding in findings} == set(BAD_MANIFESTS)
    assert {finding.severity for finding in findings} == {"critical", "warning", "info"}


@pytest.mark.parametrize("rule", BAD_MANIFESTS)
def test_each_bad_manifest_breaks_exactly_its_rule(clean: pd.DataFrame, rule: str) -> None:
    rows = clean.copy()
    BAD_MANIFESTS[rule](rows)
    assert failing(check_rows(rows)) == {rule}


def test_a_finding_counts_and_names_the_offenders(clean: pd.DataFrame) -> None:
    rows = clean.copy()
    rows.loc[[1, 4], "anatomy"] = "knee"
    [finding] = [finding for finding in check_rows(rows) if not finding.passed]
    assert (finding.rule, finding.severity) == ("anatomy-known", "critical")
    assert (finding.checked, finding.failed) == (12, 2)
    assert finding.examples == ("clinic:k1", "clinic:k4")


def test_a_rule_that_cannot_be_computed_is_no_pass(clean: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"rule .* could not be computed"):
        check_rows(clean.drop(columns="depth_cm"))


def test_values_at_the_edge_of_a_range_pass(clean: pd.DataFrame) -> None:
    rows = clean.copy()
    rows.loc[0, ["height", "width", "original_height", "original_width"]] = [32, 4096, 32, 4096]
    rows.loc[0, ["mean", "std"]] = [1.0, 2.0]
    assert failing(check_rows(rows)) == set()


def test_the_library_leaves_warnings_where_they_go(clean: pd.DataFrame) -> None:
    check_rows(clean)
    assert logging._warnings_showwarning is None  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def rewrite(file: Path, change: Damage) -> None:
    schema = pq.read_schema(file)
    table = pq.read_table(file).to_pandas()
    change(table)
    pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), file)


def test_a_clean_corpus_passes(corpus: Path) -> None:
    findings = validate_corpus(corpus, {})
    assert failing(findings) == set()
    severities = [validation.SEVERITIES.index(finding.severity) for finding in findings]
    assert severities == sorted(severities)
    assert len(findings) == len({finding.rule for finding in findings})


def test_a_patient_in_two_splits(corpus: Path) -> None:
    rows = read_manifest(corpus)
    rows["clip"] = None
    splits = read_splits(corpus)
    splits.loc[splits["id"] == "clinic:k0", "split"] = "val"
    splits.loc[splits["id"] == "clinic:k1", "split"] = "test"
    [finding] = [finding for finding in check_splits(rows, splits, {}) if not finding.passed]
    assert finding.rule == "patient-split"
    assert finding.examples == ("clinic:p0",)
    assert failing(check_splits(rows, splits, {"clinic": "official"})) == {"patient-split-unused", "split-complete"}


def test_a_clip_in_two_splits(corpus: Path) -> None:
    rows = read_manifest(corpus).assign(patient=None)
    splits = read_splits(corpus)
    splits.loc[splits["id"] == "clinic:k0", "split"] = "val"
    splits.loc[splits["id"] == "clinic:k1", "split"] = "test"
    assert failing(check_splits(rows, splits, {})) == {"clip-split"}


def test_the_same_pixels_in_two_splits_of_two_sources(corpus: Path) -> None:
    rows, splits = read_manifest(corpus), read_splits(corpus)
    splits["split"] = splits["source"].map({"clinic": "train", "phantom-breast": "test"})
    assert failing(check_splits(rows, splits, {})) == set()
    rows.loc[rows["id"] == "phantom-breast:k3", "pixel_sha256"] = rows.loc[0, "pixel_sha256"]
    [finding] = [finding for finding in check_splits(rows, splits, {}) if not finding.passed]
    assert (finding.rule, finding.failed, finding.examples) == ("pixel-split", 1, ("clinic:k0",))


def across(corpus: Path) -> list[Finding]:
    rows = read_manifest(corpus)
    return check_files(corpus, rows) + check_splits(rows, read_splits(corpus), {})


def test_an_image_without_a_split(corpus: Path) -> None:
    rewrite(corpus / "clinic/0000/splits/default.parquet", lambda table: table.drop(2, inplace=True))
    counts = corpus / "clinic/0000/batch.json"
    about = json.loads(counts.read_text())
    about["splits"] = {}
    counts.write_text(json.dumps(about))
    assert failing(across(corpus)) == {"split-complete"}


def test_a_split_of_an_unknown_image(corpus: Path) -> None:
    splits = read_splits(corpus)
    splits.loc[len(splits)] = ["clinic", "0000", "default", "clinic:k9", "train"]
    assert failing(check_splits(read_manifest(corpus), splits, {})) == {"split-known"}


def test_a_row_of_another_folder(corpus: Path) -> None:
    rewrite(corpus / "clinic/0000/manifest.parquet", put("batch", "0001"))
    assert failing(across(corpus)) == {"batch-place", "split-complete", "split-known"}


@pytest.mark.parametrize("key", ["images", "given", "refused", "accepted"])
def test_counts_that_do_not_add_up(corpus: Path, key: str) -> None:
    file = corpus / "clinic/0000/batch.json"
    about = json.loads(file.read_text())
    about[key] += 1
    file.write_text(json.dumps(about))
    [finding] = [finding for finding in across(corpus) if not finding.passed]
    assert (finding.rule, finding.examples) == ("batch-counts", ("clinic/0000",))


def test_a_missing_and_an_unnamed_shard(corpus: Path) -> None:
    shard = corpus / "clinic/0000/shard-00000.parquet"
    shard.rename(shard.with_name("shard-00007.parquet"))
    [finding] = [finding for finding in across(corpus) if not finding.passed]
    assert finding.rule == "shards-present"
    assert finding.examples == ("clinic/0000/shard-00000.parquet", "clinic/0000/shard-00007.parquet")


def swap_rows(rows: pd.DataFrame) -> None:
    rows["row"] = rows["row"].to_numpy()[[1, 0, 2, 3, 4, 5]]


def test_a_shard_in_another_order(corpus: Path) -> None:
    rewrite(corpus / "clinic/0000/manifest.parquet", swap_rows)
    [finding] = [finding for finding in across(corpus) if not finding.passed]
    assert (finding.rule, finding.examples) == ("shards-agree", ("clinic/0000/shard-00000.parquet",))


def test_a_manifest_that_is_no_parquet_is_named(corpus: Path) -> None:
    (corpus / "clinic/0000/manifest.parquet").write_text("nonsense")
    with pytest.raises(ValueError, match=r"clinic/0000/manifest\.parquet is not a readable parquet"):
        validate_corpus(corpus, {})


def test_schema_and_suite_speak_of_the_same_columns(clean: pd.DataFrame) -> None:
    assert list(clean.columns) == SCHEMA.names
