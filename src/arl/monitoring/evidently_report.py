"""The drift tests as one report of Evidently, whose tests decide.

The report has Evidently's own metrics for the columns and two metrics of ours for the embeddings.
The test of each site is bound to its value by Evidently's extension points (0.7: a metric, its
calculation, and a test). A test that fails asks for a training. A test that is not critical ends as
a warning and explains a shift.

The import takes 5 s, so only `drift.judge_drift` imports this module.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

# Evidently sends statistics of its use to its makers, unless this is set before its import.
os.environ["DO_NOT_TRACK"] = "true"
with warnings.catch_warnings():
    # These are warnings of the library's own imports, which its users cannot mend.
    warnings.filterwarnings("ignore", r"numpy\.core is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", r".*in litestar 2\.", DeprecationWarning)
    from evidently import DataDefinition, Dataset, Report
    from evidently.core.metric_types import (
        ByLabelCalculation,
        ByLabelMetric,
        ByLabelValue,
        MetricTest,
        MetricTestResult,
        SingleValue,
        TestStatus,
    )
    from evidently.core.report import Context, Snapshot
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.legacy.renderers.html_widgets import table_data
    from evidently.metrics import DriftedColumnsCount, ValueDrift
    from evidently.tests import lt

from arl.evaluation.statistics import holm
from arl.monitoring.drift import (
    HOMOGENEITY,
    KOLMOGOROV_SMIRNOV,
    SiteSample,
    distance,
    homogeneity,
    permutation_mmd,
)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReportRules:
    """The thresholds of a report.

    Attributes:
        alpha: of the embedding tests of all sites together.
        threshold: p value below which a column drifts.
        drift_share: fraction of drifted columns from which their test fails.
        columns_decide: whether that test asks for a training; else it warns.
    """

    alpha: float
    threshold: float
    drift_share: float
    columns_decide: bool
    permutations: int
    seed: int


class SampleDataset(Dataset):  # type: ignore[misc]
    """A sample as additional data of a report, which takes nothing but datasets.

    Evidently measures every column of its own datasets, and a kernel has one for each patient.
    """

    def __init__(self, sample: SiteSample) -> None:
        self.sample = sample

    def as_dataframe(self) -> pd.DataFrame:
        """The kernel, one row per patient."""
        return pd.DataFrame(self.sample.kernel)


def samples_of(context: Context) -> dict[str, SiteSample]:
    """The samples that `run_report` gave to a report."""
    return {name: dataset.sample for name, dataset in context.additional_data.items()}


class SiteDistance(ByLabelMetric):  # type: ignore[misc]
    """Squared MMD of the embeddings of each site, probe and device from its reference."""


class SiteDistanceCalculation(ByLabelCalculation[SiteDistance]):  # type: ignore[misc]
    """Computes `SiteDistance` from the samples in the report's additional data."""

    def calculate(self, context: Context, current: Dataset, reference: Dataset) -> ByLabelValue:
        """The unbiased squared MMD of each sample."""
        samples = samples_of(context)
        values = {name: distance(one.kernel, one.is_current) for name, one in samples.items()}
        result = self.result(values)
        rows = [[name, samples[name].compared_with, f"{values[name]:.4f}"] for name in values]
        columns = ["site, probe or device", "compared with", "MMD²"]
        result.widget = [table_data(title=self.display_name(), column_names=columns, data=rows)]
        return result

    def display_name(self) -> str:
        """The title in the page."""
        return "Distance of the embeddings (MMD²)"


class SiteShift(ByLabelMetric):  # type: ignore[misc]
    """Adjusted p value of the permutation test over patients, of each site, probe and device."""

    permutations: int
    seed: int


class SiteShiftCalculation(ByLabelCalculation[SiteShift]):  # type: ignore[misc]
    """Computes `SiteShift` for all samples together, as the adjustment needs all p values."""

    raw: ClassVar[dict[str, float]] = {}

    def calculate(self, context: Context, current: Dataset, reference: Dataset) -> ByLabelValue:
        """The p value of each sample after correction for their number."""
        samples = samples_of(context)
        type(self).raw = {
            name: permutation_mmd(
                one.kernel, one.is_current, self.metric.permutations, self.metric.seed
            ).p_value
            for name, one in samples.items()
        }
        adjusted = holm(list(self.raw.values()))
        values = dict(zip(samples, adjusted, strict=True))
        result = self.result(values)
        rows = [[name, f"{self.raw[name]:.4f}", f"{values[name]:.4f}"] for name in values]
        columns = ["site, probe or device", "p", "adjusted p"]
        result.widget = [table_data(title=self.display_name(), column_names=columns, data=rows)]
        return result

    def display_name(self) -> str:
        """The title in the page."""
        return "Shift of the embeddings (adjusted p)"


class ShiftTest(MetricTest):  # type: ignore[misc]
    """Fails if a site differs measurably, and by more than training sites usually differ.

    Attributes:
        alpha: adjusted p value below which the site differs.
        usual: squared MMD that the distance must exceed; None: any distance counts.
    """

    alpha: float
    usual: float | None = None

    def to_test(self) -> Callable[..., MetricTestResult]:
        """The function that Evidently calls with the value of one site."""

        def run(context: Context, calculation: Any, value: SingleValue) -> MetricTestResult:
            label = value.metric_value_location.param["label"]
            far = context.get_metric_result(SiteDistance()).get_label_result(label).value
            is_unusual = self.usual is None or far > self.usual
            usual = "unknown" if self.usual is None else f"{self.usual:.4f}"
            return MetricTestResult(
                id="site_shift",
                name=f"{label}: like its reference",
                description=f"adjusted p {value.value:.4f}, alpha {self.alpha:g};"
                f" MMD² {far:.4f}, usual {usual}",
                metric_config=calculation.to_metric_config(),
                # The label is not part of the test, and a reader of the JSON needs it.
                test_config={**self.dict(), "label": label},
                status=TestStatus.FAIL
                if value.value < self.alpha and is_unusual
                else TestStatus.SUCCESS,
            )

        return run


class ColumnTest(MetricTest):  # type: ignore[misc]
    """Warns if a column's p value is below the threshold; Evidently's own test rounds to 0.001."""

    threshold: float
    is_critical: bool = False

    def to_test(self) -> Callable[..., MetricTestResult]:
        """The function that Evidently calls with the p value of a column."""

        def run(context: Context, calculation: Any, value: SingleValue) -> MetricTestResult:
            column = calculation.metric.column
            return MetricTestResult(
                id="column_shift",
                name=f"{column}: like its reference",
                description=f"p {value.value:.4f}, threshold {self.threshold:.4f}",
                metric_config=calculation.to_metric_config(),
                test_config={**self.dict(), "column": column},
                status=TestStatus.FAIL if value.value < self.threshold else TestStatus.SUCCESS,
            )

        return run


def _homogeneity(
    reference_data: "pd.Series[str]",
    current_data: "pd.Series[str]",
    feature_type: object,
    threshold: float,
) -> tuple[float, bool]:
    """p value and verdict for two samples of names.

    Evidently's own chi-square takes the reference for the truth, and a name it lacks for
    impossible.
    """
    p_value = homogeneity(current_data, reference_data)
    return p_value, p_value < threshold


@dataclass(frozen=True)
class ReportResult:
    """What a report decided.

    Attributes:
        columns: column -> p value.
        distances, p_values, adjusted: of each sample.
        failed: samples whose test failed.
        drifted_columns: columns whose test warned.
        drifted_fraction: fraction of drifted columns.
        drifts: whether a critical test failed.
    """

    columns: dict[str, float]
    distances: dict[str, float]
    p_values: dict[str, float]
    adjusted: dict[str, float]
    failed: set[str]
    drifted_columns: set[str]
    drifted_fraction: float
    columns_failed: bool
    drifts: bool
    snapshot: Snapshot


def run_report(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    numbers: Sequence[str],
    names: Sequence[str],
    samples: Mapping[str, SiteSample],
    rules: ReportRules,
) -> ReportResult:
    """Run all tests of a drift comparison as one report.

    Args:
        current: (P, columns), one row per new patient.
        reference: the same of the training images.
        numbers, names: the columns to compare.
        samples: label of a site, probe or device -> its kernel.
    """
    register_stattest(
        StatTest(HOMOGENEITY, "chi-square test of homogeneity, p-value", [ColumnType.Categorical]),
        default_impl=_homogeneity,
    )
    columns = [*numbers, *names]
    methods = dict.fromkeys(numbers, KOLMOGOROV_SMIRNOV) | dict.fromkeys(names, HOMOGENEITY)
    drifted_count = DriftedColumnsCount(
        columns=columns,
        num_method=KOLMOGOROV_SMIRNOV,
        cat_method=HOMOGENEITY,
        num_threshold=rules.threshold,
        cat_threshold=rules.threshold,
        drift_share=rules.drift_share,
        tests=[],
        share_tests=[lt(rules.drift_share, is_critical=rules.columns_decide)],
    )
    drifts = [
        ValueDrift(
            column=name,
            method=methods[name],
            threshold=rules.threshold,
            tests=[ColumnTest(threshold=rules.threshold)],
        )
        for name in columns
    ]
    distances = SiteDistance()
    shifts = SiteShift(
        permutations=rules.permutations,
        seed=rules.seed,
        tests={
            name: [ShiftTest(alpha=rules.alpha, usual=one.usual)] for name, one in samples.items()
        },
    )
    # The distances come first: the tests of the shifts read them.
    items = [*([distances, shifts] if samples else []), drifted_count, *drifts]
    definition = DataDefinition(numerical_columns=list(numbers), categorical_columns=list(names))
    tables = [
        Dataset.from_pandas(table[columns].reset_index(drop=True), definition)
        for table in (current, reference)
    ]
    additional = {name: SampleDataset(sample) for name, sample in samples.items()}
    snapshot = Report(items).run(*tables, additional_data=additional)
    results, tests = snapshot.metric_results, snapshot.tests_results
    failing = [test for test in tests if test.status in (TestStatus.FAIL, TestStatus.ERROR)]
    by_site = {} if not samples else results[shifts.metric_id].to_simple_dict()
    far = {} if not samples else results[distances.metric_id].to_simple_dict()
    count = results[drifted_count.metric_id]
    of_columns = [test for test in tests if test.id == "column_shift"]
    return ReportResult(
        columns={one.column: float(results[one.metric_id].value) for one in drifts},
        distances={name: float(value) for name, value in far.items()},
        p_values=dict(SiteShiftCalculation.raw) if samples else {},
        adjusted={name: float(value) for name, value in by_site.items()},
        failed={test.test_config["label"] for test in failing if test.id == "site_shift"},
        drifted_columns={
            test.test_config["column"] for test in of_columns if test.status != TestStatus.SUCCESS
        },
        drifted_fraction=float(count.get_share().value),
        columns_failed=any(test.id == "lt" for test in failing),
        drifts=bool(failing),
        snapshot=snapshot,
    )
