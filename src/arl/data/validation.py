"""Is the corpus what the rest believes it is?

Row rules run as a Great Expectations suite on the manifest; rules across rows and files (splits, counts,
shards) are plain pandas, since Great Expectations has no check per group. Each rule has a severity:
critical stops the pipeline, warning and info are reported.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq

from arl.data.anatomy import ANATOMIES, OTHER
from arl.data.manifest import PROBES, batch_folders, read_manifest, read_table
from arl.data.splits import DEFAULT, SPLIT_SCHEMA
from arl.files import read_json

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
MAX_EXAMPLES = 5
PHANTOM_SOURCE = "phantom"  # how the name of every source of synthetic images begins
SMALLEST, LARGEST = 32, 4096  # side of a stored image, pixels
DARKEST, BRIGHTEST = 1.0, 250.0  # mean grey level of an image that shows anything
FLATTEST = 2.0  # standard deviation of its grey levels
SPACING_MM = (0.005, 2.0)  # of a stored pixel: from 50 MHz skin probes to scaled-down abdominal images
DEPTH_CM = (0.3, 40.0)
_DETAILS = {
    "result_format": "SUMMARY",
    "unexpected_index_column_names": ["id"],
    "partial_unexpected_count": MAX_EXAMPLES,
}


@dataclass(frozen=True)
class Finding:
    """What one rule found."""

    rule: str
    severity: Severity
    description: str
    checked: int  # rows, patients, clips, batches
    failed: int
    examples: tuple[str, ...]  # the first offenders, at most MAX_EXAMPLES

    @property
    def passed(self) -> bool:
        return self.failed == 0


def validate_corpus(corpus: Path, protocols: Mapping[str, str]) -> list[Finding]:
    """All findings on a corpus, critical rules first; `protocols` names the split protocol of a source.

    Raises:
        FileNotFoundError: there is no corpus, or a batch lacks a file.
        ValueError: a file cannot be read as what it should be.
    """
    rows = read_manifest(corpus)
    findings = check_rows(rows) + check_files(corpus, rows) + check_splits(rows, read_splits(corpus), protocols)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def check_rows(rows: pd.DataFrame) -> list[Finding]:
    """The rules on single rows and on uniqueness; `rows` as `read_manifest` gives them.

    Counts and examples are asked for where a rule fails only, which halves the work.
    """
    with _great_expectations() as (gx, gxe, column):
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("corpus").add_dataframe_asset("manifest")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})

        def run(expectations: list[Any], **form: Any) -> dict[str, Any]:
            suite = gx.ExpectationSuite(name="manifest", expectations=expectations)
            results = batch.validate(suite, result_format=form).results
            return {_checked(result).expectation_config.meta["rule"]: result for result in results}

        suite = list(_expectations(gxe, column))
        held = {rule: result.success for rule, result in run(suite, result_format="BOOLEAN_ONLY").items()}
        broken = [expectation for expectation in suite if not held[expectation.meta["rule"]]]
        details = run(broken, **_DETAILS) if broken else {}
        return [_finding(expectation, len(rows), details.get(expectation.meta["rule"])) for expectation in suite]


@contextmanager
def _great_expectations() -> Iterator[tuple[Any, Any, Any]]:
    """The library, its expectations and its condition column; it costs 3 s, so nothing else imports it."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations as gx
        import great_expectations.expectations as gxe
        from great_expectations.expectations.row_conditions import Column

        logging.captureWarnings(False)  # the import diverts every warning of the process to the log
        yield gx, gxe, Column


def _expectations(gxe: Any, column: Any) -> Iterator[Any]:
    yield from _identity_expectations(gxe)
    yield from _vocabulary_expectations(gxe, column)
    yield from _image_expectations(gxe)
    yield from _annotation_expectations(gxe, column)


def _rule(rule: str, severity: Severity, description: str) -> dict[str, Any]:
    return {"meta": {"rule": rule}, "severity": severity, "description": description}


def _identity_expectations(gxe: Any) -> Iterator[Any]:
    yield gxe.ExpectTableRowCountToBeBetween(min_value=1, **_rule("rows", "critical", "the corpus holds an image"))
    yield gxe.ExpectColumnValuesToNotBeNull(column="id", **_rule("id-present", "critical", "every image has an id"))
    yield gxe.ExpectColumnValuesToBeUnique(column="id", **_rule("id-unique", "critical", "no two images share an id"))
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="id", regex=r"^[^:\s]+:.*\S$", **_rule("id-form", "critical", "an id reads <source>:<key>")
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="patient", regex=r"^[^:\s]+:.*\S$", **_rule("patient-form", "critical", "a patient reads <source>:<key>")
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="site", regex=r"\S", **_rule("site-present", "critical", "every image names its site")
    )
    yield gxe.ExpectCompoundColumnsToBeUnique(
        column_list=["source", "batch", "shard", "row"],
        **_rule("place-unique", "critical", "no two images share a place in a shard"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="shard",
        regex=r"^shard-\d{5}\.parquet$",
        **_rule("shard-form", "critical", "a shard is named shard-00000.parquet"),
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="row", min_value=0, **_rule("row-range", "critical", "a row inside a shard is not negative")
    )
    yield gxe.ExpectColumnValuesToNotBeNull(
        column="patient", **_rule("patient-known", "info", "the patient is known (else splits hold clips or images)")
    )


def _vocabulary_expectations(gxe: Any, column: Any) -> Iterator[Any]:
    yield gxe.ExpectColumnValuesToBeInSet(
        column="anatomy",
        value_set=[*ANATOMIES, OTHER],
        **_rule("anatomy-known", "critical", "the anatomy is one of the 16 or other"),
    )
    yield gxe.ExpectColumnValuesToBeInSet(
        column="probe",
        value_set=list(PROBES),
        **_rule("probe-known", "critical", f"the probe is one of {', '.join(PROBES)}"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="source",
        regex=rf"^{PHANTOM_SOURCE}",
        row_condition=column("synthetic") == 1,
        **_rule("synthetic-source", "critical", "synthetic images come from phantom sources only"),
    )
    yield gxe.ExpectColumnValuesToNotMatchRegex(
        column="source",
        regex=rf"^{PHANTOM_SOURCE}",
        row_condition=column("synthetic") == 0,
        **_rule("phantom-marked", "critical", "every image of a phantom source is marked synthetic"),
    )


def _image_expectations(gxe: Any) -> Iterator[Any]:
    for side in ("height", "width"):
        yield gxe.ExpectColumnValuesToBeBetween(
            column=side,
            min_value=SMALLEST,
            max_value=LARGEST,
            **_rule(f"{side}-range", "critical", f"the stored {side} is {SMALLEST} to {LARGEST} pixels"),
        )
        yield gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=f"original_{side}",
            column_B=side,
            or_equal=True,
            **_rule(f"{side}-never-up", "critical", f"no image was enlarged in {side}"),
        )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="mean",
        min_value=DARKEST,
        max_value=BRIGHTEST,
        **_rule("mean-range", "critical", f"the mean grey level is {DARKEST:g} to {BRIGHTEST:g}, so not blank"),
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="std",
        min_value=FLATTEST,
        **_rule("std-range", "critical", f"grey levels vary: their standard deviation is at least {FLATTEST:g}"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="pixel_sha256", regex=r"^[0-9a-f]{64}$", **_rule("hash-form", "critical", "the pixel hash is a SHA-256")
    )
    yield gxe.ExpectColumnValuesToBeUnique(
        column="pixel_sha256", **_rule("pixels-unique", "warning", "no two images have the same pixels")
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="pixel_spacing_mm",
        min_value=SPACING_MM[0],
        max_value=SPACING_MM[1],
        **_rule("spacing-range", "warning", f"a stored pixel is {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm"),
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="depth_cm",
        min_value=DEPTH_CM[0],
        max_value=DEPTH_CM[1],
        **_rule("depth-range", "warning", f"the depth is {DEPTH_CM[0]:g} to {DEPTH_CM[1]:g} cm"),
    )


def _annotation_expectations(gxe: Any, column: Any) -> Iterator[Any]:
    yield gxe.ExpectColumnValuesToBeBetween(
        column="frame", min_value=0, **_rule("frame-range", "critical", "a frame number is not negative")
    )
    yield gxe.ExpectColumnValuesToNotBeNull(
        column="clip",
        row_condition=column("frame") > 0,
        **_rule("clip-named", "critical", "a later frame names its clip"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="label",
        regex=r"^\S(?:.*\S)?$",
        **_rule("label-form", "critical", "a label is not blank and has no space around it"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="mask",
        regex=r"^[a-z][a-z0-9_-]*$",
        **_rule("mask-form", "critical", "a mask says what it shows in lower case"),
    )


def _checked(result: Any) -> Any:
    """The result itself; an expectation that could not be computed is an error, not an answer."""
    info = result.exception_info
    failures = [info] if "raised_exception" in info else list(info.values())
    messages = [failure["exception_message"] for failure in failures if failure["raised_exception"]]
    if messages:
        raise ValueError(f"rule {result.expectation_config.meta['rule']} could not be computed: {messages[0]}")
    return result


def _finding(expectation: Any, checked: int, result: Any) -> Finding:
    """`result` is of a rule that failed, None where it passed."""
    failed = 0 if result is None else int(result.result.get("unexpected_count", 1))
    places = [] if result is None else result.result.get("partial_unexpected_index_list", [])
    examples = _examples(place["id"] for place in places)
    severity: Severity = expectation.severity.value
    return Finding(expectation.meta["rule"], severity, expectation.description, checked, failed, examples)


def _examples(values: Iterable[object]) -> tuple[str, ...]:
    names = ("(no id)" if pd.isna(value) else str(value) for value in values)  # type: ignore[call-overload]
    return tuple(dict.fromkeys(names))[:MAX_EXAMPLES]


def read_splits(corpus: Path) -> pd.DataFrame:
    """Every split file of the corpus: source, batch, protocol, id, split."""
    tables = [
        read_table(file, SPLIT_SCHEMA).assign(source=folder.parent.name, batch=folder.name, protocol=file.stem)
        for folder in batch_folders(corpus)
        for file in sorted((folder / "splits").glob("*.parquet"))
    ]
    columns = ["source", "batch", "protocol", "id", "split"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def check_splits(rows: pd.DataFrame, splits: pd.DataFrame, protocols: Mapping[str, str]) -> list[Finding]:
    """The rules on who is in which split; `protocols` names the one in use per source, else "default"."""
    chosen = splits["source"].map(lambda source: protocols.get(source, DEFAULT)) == splits["protocol"]
    facts = rows[["source", "batch", "id", "patient", "clip", "pixel_sha256"]]
    joined = splits.assign(used=chosen).merge(facts, on=["source", "batch", "id"], how="left", indicator=True)
    used, unused = joined[joined["used"]], joined[~joined["used"]]
    apart = "is in one split only"
    return [
        _divided(used, "patient", "patient-split", "critical", f"a patient {apart}, under the protocol in use"),
        _divided(used, "clip", "clip-split", "critical", f"a clip {apart}, under the protocol in use"),
        _divided(used, "pixel_sha256", "pixel-split", "critical", f"a set of pixels {apart}, over all sources"),
        _divided(unused, "patient", "patient-split-unused", "warning", f"a patient {apart}, under other protocols"),
        _without_split(facts, used),
        _unknown_in_split(joined),
    ]


def _divided(joined: pd.DataFrame, key: str, rule: str, severity: Severity, description: str) -> Finding:
    """Keys whose rows are in more than one split of a protocol."""
    by = [key] if key == "pixel_sha256" else ["source", "protocol", key]  # the same pixels may come from two sources
    grouped = joined.dropna(subset=[key]).groupby(by, sort=True)
    count = grouped["split"].nunique()
    offenders = count.index[count > 1]
    first = grouped["id"].first().loc[offenders] if key == "pixel_sha256" else offenders.get_level_values(-1)
    return Finding(rule, severity, description, len(count), len(offenders), _examples(first))


def _without_split(facts: pd.DataFrame, used: pd.DataFrame) -> Finding:
    key = ["source", "batch", "id"]
    merged = facts[key].merge(used[key].drop_duplicates(), on=key, how="left", indicator=True)
    lost = merged.loc[merged["_merge"] == "left_only", "id"]
    text = "every image has a split under the protocol in use"
    return Finding("split-complete", "critical", text, len(facts), len(lost), _examples(lost))


def _unknown_in_split(joined: pd.DataFrame) -> Finding:
    unknown = joined.loc[joined["_merge"] == "left_only", "id"]
    text = "a split names only images of its batch"
    return Finding("split-known", "critical", text, len(joined), len(unknown), _examples(unknown))


def check_files(corpus: Path, rows: pd.DataFrame) -> list[Finding]:
    """The rules that hold manifest, shards and counts together, batch by batch."""
    checks: list[tuple[str, str, Callable[[Path, pd.DataFrame], list[str]]]] = [
        ("batch-place", "a manifest holds rows of its own folder only", _misplaced),
        ("batch-counts", "the counts of batch.json add up with manifest, splits and quarantine", _miscounted),
        ("shards-present", "every shard exists and is named by a row", _missing_shards),
        ("shards-agree", "a shard holds the images at the rows the manifest says", _misnumbered),
    ]
    batches = list(_by_folder(corpus, rows))
    findings = []
    for rule, description, check in checks:
        offenders = [name for folder, part in batches for name in check(folder, part)]
        findings.append(Finding(rule, "critical", description, len(batches), len(offenders), _examples(offenders)))
    return findings


def _by_folder(corpus: Path, rows: pd.DataFrame) -> Iterator[tuple[Path, pd.DataFrame]]:
    """Each batch folder and its rows, as slices: `read_manifest` keeps the order of folders."""
    start = 0
    for folder in batch_folders(corpus):
        end = start + int(pq.read_metadata(folder / "manifest.parquet").num_rows)
        yield folder, rows.iloc[start:end]
        start = end


def _name(folder: Path, file: str = "") -> str:
    return "/".join(filter(None, (folder.parent.name, folder.name, file)))


def _misplaced(folder: Path, rows: pd.DataFrame) -> list[str]:
    elsewhere = (rows["source"] != folder.parent.name) | (rows["batch"] != folder.name)
    return [str(identifier) for identifier in rows.loc[elsewhere, "id"]]


def _miscounted(folder: Path, rows: pd.DataFrame) -> list[str]:
    counts = read_json(folder / "batch.json")
    refused = pq.read_metadata(folder / "quarantine.parquet").num_rows
    agrees = (
        counts.get("images") == len(rows)
        and counts.get("refused") == refused
        and counts.get("given") == counts.get("accepted", 0) + refused
        and all(sum(split.values()) == len(rows) for split in counts.get("splits", {}).values())
    )
    return [] if agrees else [_name(folder)]


def _missing_shards(folder: Path, rows: pd.DataFrame) -> list[str]:
    present = {file.name for file in folder.glob("shard-*.parquet")}
    return [_name(folder, shard) for shard in sorted(present ^ set(rows["shard"]))]


def _misnumbered(folder: Path, rows: pd.DataFrame) -> list[str]:
    return [
        _name(folder, str(shard))
        for shard, part in rows.groupby("shard", sort=True)
        if (folder / str(shard)).is_file() and not _agrees(folder / str(shard), part)
    ]


def _agrees(shard: Path, rows: pd.DataFrame) -> bool:
    """Whether the ids of a shard, read without its images, stand where the manifest says."""
    ids = pq.read_table(shard, columns=["id"])["id"].to_pylist()
    ordered = rows.sort_values("row")
    return ordered["row"].tolist() == list(range(len(ids))) and ordered["id"].tolist() == ids
