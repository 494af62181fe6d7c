"""Is every row of the manifest what the rest believes it is?

The rules on single rows run as a Great Expectations suite, on a part of the manifest at a time, so
that memory does not grow with the corpus; rules across rows and files are in `invariants`. Each
rule has a severity: critical stops the pipeline, warning and info are reported.
"""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from arl.corpus.anatomy import ANATOMIES, OTHER
from arl.corpus.checks.findings import MAX_EXAMPLES, Finding, Severity, examples
from arl.corpus.limits import BRIGHTEST, DARKEST, FLATTEST, LARGEST, SMALLEST
from arl.corpus.manifest import PROBES

# How the name of every source of synthetic images begins.
PHANTOM_SOURCE = "phantom"
SPACING_MM = (
    0.005,
    2.0,
    # of a stored pixel: from 50 MHz skin probes to scaled-down abdominal images.
)
DEPTH_CM = (0.3, 40.0)
_DETAILS = {
    "result_format": "SUMMARY",
    "unexpected_index_column_names": ["id"],
    "partial_unexpected_count": MAX_EXAMPLES,
}


def check_rows(parts: Iterable[pd.DataFrame]) -> list[Finding]:
    """The rules on single rows; `parts` are manifest rows, see `manifest.manifest_parts`.

    Counts and examples are asked for where a rule fails only, which halves the work.

    Raises:
        ValueError: a rule could not be computed.
    """
    with _great_expectations() as (gx, gxe, column):
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("corpus").add_dataframe_asset("manifest")
        definition = asset.add_batch_definition_whole_dataframe("part")
        suite = list(_expectations(gxe, column))
        findings = {expectation.meta["rule"]: _unchecked(expectation) for expectation in suite}
        for rows in parts:
            batch = definition.get_batch({"dataframe": _vectorised(rows)})
            for rule, (failed, examples) in _check_part(gx, batch, suite).items():
                findings[rule] = findings[rule].plus(len(rows), failed, examples)
    return list(findings.values())


def _vectorised(rows: pd.DataFrame) -> pd.DataFrame:
    """Great Expectations compares 64-bit numbers at once, others value by value."""
    wide = {np.dtype("int32"): "int64", np.dtype("float32"): "float64"}
    types = {name: wide[dtype] for name, dtype in rows.dtypes.items() if dtype in wide}
    return rows.astype(types)


def _check_part(gx: Any, batch: Any, suite: list[Any]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Rule -> how many rows break it, and the first of them."""

    def run(expectations: list[Any], **form: Any) -> Mapping[str, Any]:
        results = batch.validate(
            gx.ExpectationSuite(name="manifest", expectations=expectations), result_format=form
        )
        return {
            _checked(result).expectation_config.meta["rule"]: result for result in results.results
        }

    held = {
        rule: result.success for rule, result in run(suite, result_format="BOOLEAN_ONLY").items()
    }
    broken = [expectation for expectation in suite if not held[expectation.meta["rule"]]]
    details = run(broken, **_DETAILS) if broken else {}
    return {rule: _offenders(details[rule].result) if rule in details else (0, ()) for rule in held}


@contextmanager
def _great_expectations() -> Iterator[tuple[Any, Any, Any]]:
    """The library, its expectations and its condition column; the import costs 3 s."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(
        logging.WARNING
        # it tells hundreds of times what it registers.
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations as gx
        import great_expectations.expectations as gxe
        from great_expectations.execution_engine import pandas_execution_engine
        from great_expectations.expectations.row_conditions import Column

        # a fingerprint of the data that nobody asks for would be 95 % of the time
        # Bytes, above which there is none.
        pandas_execution_engine.HASH_THRESHOLD = 0

        # The import diverts every warning of the process to the log.
        logging.captureWarnings(False)
        yield gx, gxe, Column


def _expectations(gxe: Any, column: Any) -> Iterator[Any]:
    yield from _identity_expectations(gxe)
    yield from _vocabulary_expectations(gxe, column)
    yield from _image_expectations(gxe)
    yield from _annotation_expectations(gxe, column)


class _Rule(TypedDict):
    """The arguments that every expectation takes, whatever it checks."""

    meta: dict[str, str]
    severity: Severity
    description: str


def _rule(rule: str, severity: Severity, description: str) -> _Rule:
    return {"meta": {"rule": rule}, "severity": severity, "description": description}


def _identity_expectations(gxe: Any) -> Iterator[Any]:
    yield gxe.ExpectColumnValuesToNotBeNull(
        column="id", **_rule("id-present", "critical", "every image has an id")
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="id",
        regex=r"^[^:\s]+:.*\S$",
        **_rule("id-form", "critical", "an id reads <source>:<key>"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="patient",
        regex=r"^[^:\s]+:.*\S$",
        **_rule("patient-form", "critical", "a patient reads <source>:<key>"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="site",
        regex=r"\S",
        **_rule("site-present", "critical", "every image names its site"),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="shard",
        regex=r"^shard-\d{5}\.parquet$",
        **_rule("shard-form", "critical", "a shard is named shard-00000.parquet"),
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="row",
        min_value=0,
        **_rule("row-range", "critical", "a row inside a shard is not negative"),
    )
    yield gxe.ExpectColumnValuesToNotBeNull(
        column="patient",
        **_rule("patient-known", "info", "the patient is known (else splits hold clips or images)"),
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
        **_rule(
            "phantom-marked", "critical", "every image of a phantom source is marked synthetic"
        ),
    )


def _image_expectations(gxe: Any) -> Iterator[Any]:
    for side in ("height", "width"):
        yield gxe.ExpectColumnValuesToBeBetween(
            column=side,
            min_value=SMALLEST,
            max_value=LARGEST,
            **_rule(
                f"{side}-range", "critical", f"the stored {side} is {SMALLEST} to {LARGEST} pixels"
            ),
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
        **_rule(
            "mean-range",
            "critical",
            f"the mean grey level is {DARKEST:g} to {BRIGHTEST:g}, so not blank",
        ),
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="std",
        min_value=FLATTEST,
        **_rule(
            "std-range",
            "critical",
            f"grey levels vary: their standard deviation is at least {FLATTEST:g}",
        ),
    )
    yield gxe.ExpectColumnValuesToMatchRegex(
        column="pixel_sha256",
        regex=r"^[0-9a-f]{64}$",
        **_rule("hash-form", "critical", "the pixel hash is a SHA-256"),
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="pixel_spacing_mm",
        min_value=SPACING_MM[0],
        max_value=SPACING_MM[1],
        **_rule(
            "spacing-range",
            "warning",
            f"a stored pixel is {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm",
        ),
    )
    yield gxe.ExpectColumnValuesToBeBetween(
        column="depth_cm",
        min_value=DEPTH_CM[0],
        max_value=DEPTH_CM[1],
        **_rule("depth-range", "warning", f"the depth is {DEPTH_CM[0]:g} to {DEPTH_CM[1]:g} cm"),
    )


def _annotation_expectations(gxe: Any, column: Any) -> Iterator[Any]:
    yield gxe.ExpectColumnValuesToBeBetween(
        column="frame",
        min_value=0,
        **_rule("frame-range", "critical", "a frame number is not negative"),
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
        raise ValueError(
            f"rule {result.expectation_config.meta['rule']} could not be computed: {messages[0]}"
        )
    return result


def _unchecked(expectation: Any) -> Finding:
    return Finding(
        expectation.meta["rule"], expectation.severity.value, expectation.description, 0, 0, ()
    )


def _offenders(result: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    positions = result.get("partial_unexpected_index_list", [])
    return int(result.get("unexpected_count", 1)), examples(
        position["id"] for position in positions
    )
