"""Every rule on rows has a manifest that breaks it, and only it."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.checks.findings import Finding
from arl.corpus.checks.validation import check_rows
from arl.corpus.manifest import SCHEMA, manifest_parts, read_manifest
from arl.corpus.shard_writer import BatchWriter

Damage = Callable[[pd.DataFrame], None]


def fill(batch: BatchWriter, seed: int, *, synthetic: bool = False) -> None:
    random = np.random.default_rng(seed)
    for i in range(6):
        image = random.integers(0, 256, (37, 53), dtype=np.uint8)
        mask = image > 99
        batch.accept(
            image, key=f"k{i}", anatomy="breast", probe="linear",
            patient=f"p{i // 2}", clip=f"c{i // 2}", frame=i % 2,
            label="benign", mask=mask, mask_name="lesion", pixel_spacing_mm=0.1, depth_cm=4.0,
            synthetic=synthetic,
        )  # fmt: skip
    batch.refuse("broken.dcm", "not a DICOM file")


def make(corpus: Path) -> Path:
    with BatchWriter(
        corpus,
        "clinic",
        "0000",
        64,
        origin=BatchOrigin(licence="CC0", citation="none"),
    ) as batch:
        fill(batch, 2)
    with BatchWriter(
        corpus,
        "phantom-breast",
        "0000",
        64,
        origin=BatchOrigin(licence="CC0", citation="none"),
    ) as batch:
        fill(batch, 3, synthetic=True)
    return corpus


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read_manifest(make(tmp_path_factory.mktemp("corpus")))


def failing(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if not finding.passed}


def put(column: str, value: object, row: int = 1) -> Damage:
    def damage(rows: pd.DataFrame) -> None:
        rows.loc[row, column] = value

    return damage


def enlarge(side: str) -> Damage:
    return lambda rows: rows.__setitem__(f"original_{side}", rows[side] - 1)


BAD_MANIFESTS: dict[str, Damage] = {
    "id-present": put("id", None),
    "id-form": put("id", "k1"),
    "patient-form": put("patient", "p1"),
    "site-present": put("site", " "),
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
    "spacing-range": put("pixel_spacing_mm", 10.0),
    "depth-range": put("depth_cm", 120.0),
    "frame-range": put("frame", -1),
    "clip-named": put("clip", None),
    "label-form": put("label", "benign "),
    "mask-form": put("mask", "Lesion"),
}


def test_a_clean_manifest_passes(clean: pd.DataFrame) -> None:
    findings = check_rows([clean])
    assert failing(findings) == set()
    assert {finding.rule for finding in findings} == set(BAD_MANIFESTS)
    assert {finding.severity for finding in findings} == {"critical", "warning", "info"}


@pytest.mark.parametrize("rule", BAD_MANIFESTS)
def test_each_bad_manifest_breaks_exactly_its_rule(clean: pd.DataFrame, rule: str) -> None:
    rows = clean.copy()
    BAD_MANIFESTS[rule](rows)
    assert failing(check_rows([rows])) == {rule}


def test_a_finding_counts_and_names_the_offenders(clean: pd.DataFrame) -> None:
    rows = clean.copy()
    rows.loc[[1, 4], "anatomy"] = "knee"
    [finding] = [finding for finding in check_rows([rows]) if not finding.passed]
    assert (finding.rule, finding.severity) == ("anatomy-known", "critical")
    assert (finding.checked, finding.failed) == (12, 2)
    assert finding.examples == ("clinic:k1", "clinic:k4")


def test_a_rule_that_cannot_be_computed_is_no_pass(clean: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"rule .* could not be computed"):
        check_rows([clean.drop(columns="depth_cm")])


def test_values_at_the_edge_of_a_range_pass(clean: pd.DataFrame) -> None:
    rows = clean.copy()
    rows.loc[0, ["height", "width", "original_height", "original_width"]] = [32, 4096, 32, 4096]
    rows.loc[0, ["mean", "std"]] = [1.0, 2.0]
    assert failing(check_rows([rows])) == set()


def test_the_library_leaves_warnings_where_they_go(clean: pd.DataFrame) -> None:
    check_rows([clean])
    assert logging._warnings_showwarning is None  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_the_library_does_not_tell_what_it_registers_where_everything_is_logged(
    clean: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    """In a Kubeflow step the root logger shows INFO."""
    caplog.set_level(logging.INFO)
    check_rows([clean])
    assert (
        len([record for record in caplog.records if record.name.startswith("great_expectations")])
        <= 1
    )  # not 100


def test_parts_add_up(clean: pd.DataFrame) -> None:
    rows = clean.copy()
    rows.loc[[1, 4, 7, 8], "anatomy"] = "knee"
    parts = [rows.iloc[:5], rows.iloc[5:5], rows.iloc[5:]]
    whole, added = check_rows([rows]), check_rows(parts)
    assert added == whole
    [finding] = [finding for finding in added if not finding.passed]
    assert (finding.checked, finding.failed, len(finding.examples)) == (12, 4, 4)


def test_manifest_parts_are_the_manifest(tmp_path: Path) -> None:
    corpus = make(tmp_path / "corpus")
    parts = list(manifest_parts(corpus, 4))
    assert [len(part) for part in parts] == [4, 6, 2]  # batches of 6, read 4 at a time
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), read_manifest(corpus))
    assert [len(part) for part in manifest_parts(corpus)] == [12]


def test_schema_and_suite_speak_of_the_same_columns(clean: pd.DataFrame) -> None:
    assert list(clean.columns) == SCHEMA.names


def test_no_time_goes_into_a_fingerprint_of_the_rows(
    clean: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(*given: object, **options: object) -> None:
        raise AssertionError("it hashes the rows")

    monkeypatch.setattr("pandas.util.hash_pandas_object", hashed)
    assert all(finding.passed for finding in check_rows([clean]))
