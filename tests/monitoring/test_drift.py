"""Tests of drift in both directions, with patients as they come: several images each, alike among
themselves.
"""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from arl.monitoring.drift import (
    EVERYTHING,
    SAME_ANATOMY,
    SAME_KIND,
    SAME_SCANNER,
    SAME_SITE,
    DriftVerdict,
    SiteSample,
    _median_square,
    cell_kernel,
    comparable,
    distance,
    group_kernel,
    homogeneity,
    judge_drift,
    permutation_mmd,
    usual_distance,
)


def clustered(rng: np.random.Generator, patients: int, images: int, shift: float = 0) -> np.ndarray:
    """Embeddings (patients * images, 8) of which half of the variance is the patient's."""
    centre = rng.normal(shift, 1, (patients, 1, 8))
    return (centre + rng.normal(0, 1, (patients, images, 8))).reshape(-1, 8)


def shift_test(rng: np.random.Generator, shift: float, *, by_image: bool = False) -> float:
    embeddings = np.concatenate([clustered(rng, 23, 5), clustered(rng, 11, 5, shift)])
    groups = [f"p{i if by_image else i // 5:03d}" for i in range(len(embeddings))]
    kernel, names = group_kernel(embeddings, groups)
    first_new = 23 * 5 if by_image else 23
    return permutation_mmd(kernel, np.arange(len(names)) >= first_new, 199, seed=0).p_value


def test_false_alarms_on_clustered_data_keep_to_alpha() -> None:
    rng = np.random.default_rng(0)
    alarms = np.mean([shift_test(rng, 0) < 0.05 for _ in range(150)])
    assert alarms <= 0.095  # 0.05, 2.5 standard errors


def test_images_taken_for_independent_would_alarm_nearly_always() -> None:
    rng = np.random.default_rng(0)
    assert np.mean([shift_test(rng, 0, by_image=True) < 0.05 for _ in range(20)]) > 0.6


def test_a_shift_is_found() -> None:
    rng = np.random.default_rng(0)
    assert np.mean([shift_test(rng, 0.8) < 0.05 for _ in range(20)]) >= 0.9


def test_the_kernel_of_groups_against_loops() -> None:
    rng = np.random.default_rng(0)
    points, groups = rng.normal(size=(13, 3)), list("bacabbcacbaac")
    kernel, names = group_kernel(points, groups)
    assert names == ["a", "b", "c"]
    median = np.median([np.sum((x - y) ** 2) for x, y in combinations(points, 2)])
    for i, j in np.ndindex(3, 3):
        first = points[[g == names[i] for g in groups]]
        second = points[[g == names[j] for g in groups]]
        values = [np.exp(-np.sum((x - y) ** 2) / (2 * median)) for x in first for y in second]
        assert kernel[i, j] == pytest.approx(np.mean(values))


def test_the_kernel_of_some_cells_is_that_of_their_images() -> None:
    """Cells in several blocks; groups of several cells; some of the cells."""
    rng = np.random.default_rng(0)
    cell = rng.integers(0, 23, 2311)
    points = rng.normal(size=(2311, 3)) + cell[:, None] / 10
    group, chosen = np.arange(23) % 7, np.arange(23) % 3 > 0
    kernel = cell_kernel(points, cell)
    assert kernel.sums == pytest.approx(kernel.sums.T)
    found = kernel.of_groups(group, chosen)
    image, scale = chosen[cell], -2 * _median_square(points[np.argsort(cell, kind="stable")])
    for i, j in np.ndindex(7, 7):
        first, second = points[image & (group[cell] == i)], points[image & (group[cell] == j)]
        squares = ((first[:, None] - second[None]) ** 2).sum(axis=2)
        assert found[i, j] == pytest.approx(np.exp(squares / scale).mean())


def test_the_distance_is_that_of_the_test() -> None:
    rng = np.random.default_rng(0)
    kernel, _ = group_kernel(rng.normal(size=(19, 3)), [f"{i:02d}" for i in range(19)])
    current = np.arange(19) < 7
    assert distance(kernel, current) == permutation_mmd(kernel, current, 3, seed=0).mmd2


def test_what_is_usual_needs_three_sites() -> None:
    assert usual_distance([0.1, 0.2]) is None
    assert usual_distance([0.1, 0.2, 0.3]) == pytest.approx(0.29)


def test_mmd_against_loops() -> None:
    rng = np.random.default_rng(0)
    kernel, _ = group_kernel(rng.normal(size=(11, 3)), [f"{i:02d}" for i in range(11)])
    current = np.arange(11) >= 7
    within = [
        np.mean([kernel[i, j] for i in side for j in side if i != j])
        for side in (range(7), range(7, 11))
    ]
    across = np.mean([kernel[i, j] for i in range(7) for j in range(7, 11)])
    assert permutation_mmd(kernel, current, 3, seed=0).mmd2 == pytest.approx(
        sum(within) - 2 * across
    )


def test_the_p_value_of_all_permutations() -> None:
    """With 2 of 5 groups there are ten splits; the observed one is the most extreme of them."""
    kernel, _ = group_kernel(np.array([[0.0], [0.1], [0.2], [5.0], [5.1]]), list("abcde"))
    shift = permutation_mmd(kernel, np.array([False, False, False, True, True]), 4000, seed=0)
    assert shift.p_value == pytest.approx(0.1, abs=0.02)


def test_one_patient_cannot_be_tested() -> None:
    with pytest.raises(ValueError, match="two groups on each side, got 1 current of 3"):
        permutation_mmd(np.eye(3), np.array([True, False, False]), 9, seed=0)


def patients(
    count: int, *, seed: int, gain: float = 1.0, device: tuple[str, ...] = ("a", "b")
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    mean = rng.normal(60, 12, count)
    return pd.DataFrame(
        {
            "mean": mean * gain,
            "std": rng.normal(30, 5, count) * gain,
            "width": rng.normal(400, 30, count).round(),
            "depth_cm": np.where(rng.random(count) < 0.3, np.nan, rng.normal(5, 1, count)),
            "probe": "linear",
            "device": rng.choice(device, count),
        }
    )


NUMERIC, CATEGORICAL = ("mean", "std", "width", "depth_cm"), ("probe", "device")


def judge(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    html: Path,
    samples: dict[str, SiteSample] | None = None,
) -> DriftVerdict:
    return judge_drift(
        current,
        reference,
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        samples=samples or {},
        alpha=0.05,
        drift_share=0.6,
        permutations=199,
        seed=0,
        html=html,
    )


def compare(current: pd.DataFrame, reference: pd.DataFrame, html: Path) -> Any:
    return judge(current, reference, html).tabular


def sample(
    *, shift: float, usual: float | None = None, compared_with: str = SAME_SITE
) -> SiteSample:
    """20 new patients and 40 of the reference, two images each."""
    rng = np.random.default_rng(4)
    points = rng.normal(size=(120, 8))
    points[:40] += shift
    kernel, _ = group_kernel(points, [f"{i // 2:03d}" for i in range(120)])
    return SiteSample(kernel, np.arange(60) < 20, compared_with, usual)


def evidently_tests(html: Path) -> dict[str, str]:
    """Name -> status of every test in Evidently's JSON."""
    tests = json.loads(html.with_suffix(".json").read_text())["tests"]
    return {test["name"]: test["status"] for test in tests}


SAME, OTHER = patients(67, seed=1), patients(211, seed=2)


@pytest.mark.parametrize(
    ("shift", "usual", "drifts"),
    [(0.0, None, False), (2.0, None, True), (2.0, 0.01, True), (2.0, 0.99, False)],
)
def test_the_test_of_a_site_in_evidentlys_report_is_the_trigger(
    tmp_path: Path, shift: float, usual: float | None, drifts: bool
) -> None:
    html = tmp_path / "e.html"
    samples = {"north, probe linear": sample(shift=shift, usual=usual)}
    verdict = judge(SAME, OTHER, html, samples)
    name = "north, probe linear: like its reference"
    assert evidently_tests(html)[name] == ("FAIL" if drifts else "SUCCESS")
    assert (verdict.drifts, verdict.sites["north, probe linear"].drifted) == (drifts, drifts)
    assert name in html.read_text()
    test = json.loads(html.with_suffix(".json").read_text())["tests"][0]
    assert (test["test_config"]["alpha"], test["test_config"]["usual"]) == (0.05, usual)


def test_p_values_of_sites_are_adjusted_for_their_number(tmp_path: Path) -> None:
    samples = {name: sample(shift=2.0) for name in ("a", "b", "c")}
    sites = judge(SAME, OTHER, tmp_path / "e.html", samples).sites
    assert sites["a"].p_value == pytest.approx(1 / 200)
    assert sites["a"].p_adjusted == pytest.approx(3 / 200)
    kernel, is_current = samples["a"].kernel, samples["a"].is_current
    assert sites["a"].mmd2 == pytest.approx(permutation_mmd(kernel, is_current, 199, 0).mmd2)


@pytest.mark.parametrize(("compared_with", "decides"), [(SAME_SITE, True), (EVERYTHING, False)])
def test_columns_decide_for_a_site_with_training_images_and_warn_for_a_new_one(
    tmp_path: Path, compared_with: str, decides: bool
) -> None:
    html = tmp_path / "e.html"
    new = patients(67, seed=1, gain=1.3, device=("b", "c"))
    samples = {"north": sample(shift=0.0, compared_with=compared_with)}
    verdict = judge(new, OTHER, html, samples)
    assert (verdict.drifts, verdict.tabular.decides) == (decides, decides)
    assert verdict.tabular.drifted
    tests = evidently_tests(html)
    [share] = [status for name, status in tests.items() if name.startswith("Share")]
    assert share == ("FAIL" if decides else "WARNING")
    assert tests["mean: like its reference"] == "WARNING"


def test_the_page_of_evidently_leads_back_to_ours(tmp_path: Path) -> None:
    judge(SAME, OTHER, tmp_path / "e.html")
    assert '<a href="index.html">' in (tmp_path / "e.html").read_text()


def drifted(result: Any) -> set[str]:
    return {column.column for column in result.columns if column.drifted}


def test_the_same_distribution_does_not_drift(tmp_path: Path) -> None:
    result = compare(patients(67, seed=1), patients(211, seed=2), tmp_path / "e.html")
    assert drifted(result) == set()
    assert (result.drifted_fraction, result.drifted) == (0, False)
    assert result.left_out == {"probe": "one value only"}
    assert [column.column for column in result.columns] == [
        "mean",
        "std",
        "width",
        "depth_cm",
        "device",
    ]


def test_a_changed_gain_and_a_new_scanner_drift(tmp_path: Path) -> None:
    new = patients(67, seed=1, gain=1.3, device=("b", "c"))
    reference = patients(211, seed=2)
    result = compare(new, reference, tmp_path / "e.html")
    assert drifted(result) == {"mean", "std", "device"}
    assert result.drifted_fraction == pytest.approx(0.6)
    assert result.drifted
    assert "Share of Drifted Columns: Less 0.600" in (tmp_path / "e.html").read_text()
    by_name = {column.column: column for column in result.columns}
    assert by_name["mean"].p_value == pytest.approx(ks_2samp(reference["mean"], new["mean"]).pvalue)
    assert by_name["mean"].current == pytest.approx(new["mean"].median())
    assert by_name["device"].p_value == pytest.approx(
        homogeneity(new["device"], reference["device"])
    )


def test_columns_that_one_side_lacks_are_listed(tmp_path: Path) -> None:
    new, reference = patients(31, seed=1), patients(53, seed=2)
    new["depth_cm"] = np.nan
    reference["width"] = np.nan
    left_out = compare(new, reference, tmp_path / "e.html").left_out
    assert left_out["depth_cm"] == "unknown in the new data"
    assert left_out["width"] == "unknown in the reference"


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    same = patients(11, seed=0).assign(mean=1.0, std=1.0, width=1.0, depth_cm=np.nan, device="a")
    with pytest.raises(ValueError, match="no column can be compared"):
        compare(same, same, tmp_path / "e.html")


def test_the_page_of_evidently_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        compare(patients(31, seed=1), patients(53, seed=2), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text())["metrics"]


def test_the_page_of_evidently_opens_without_a_network(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    compare(patients(31, seed=1, gain=1.5), patients(53, seed=2), tmp_path / "e.html")
    opened = open_page(tmp_path / "e.html", screenshot=tmp_path / "e.png")
    assert opened.requests == []
    assert opened.errors == []
    assert "drift" in opened.text.lower()


def test_homogeneity_is_the_chi_square_where_counts_are_large() -> None:
    first = pd.Series(["a"] * 60 + ["b"] * 70 + ["c"] * 30)
    second = pd.Series(["a"] * 90 + ["b"] * 50 + ["c"] * 40)
    wanted = chi2_contingency([[60, 70, 30], [90, 50, 40]], correction=False).pvalue
    assert homogeneity(first, second) == pytest.approx(wanted)


def test_homogeneity_of_small_samples_keeps_to_alpha() -> None:
    rng = np.random.default_rng(0)
    names = np.array(list("abcdefgh"))
    share = np.array([0.4, 0.3, 0.1, 0.1, 0.04, 0.03, 0.02, 0.01])
    draw = [[pd.Series(rng.choice(names, n, p=share)) for n in (23, 71)] for _ in range(150)]
    assert np.mean([homogeneity(a, b) < 0.05 for a, b in draw]) <= 0.09


def test_one_new_name_is_no_drift_and_many_are() -> None:
    reference = pd.Series(["a"] * 90)
    assert homogeneity(pd.Series(["a"] * 29 + ["b"]), reference) > 0.05
    assert homogeneity(pd.Series(["a"] * 15 + ["b"] * 15), reference) < 1e-6
    assert homogeneity(pd.Series(["a"] * 9), reference) == 1.0


def rows(site: str, anatomy: str, count: int, *, synthetic: bool = False) -> pd.DataFrame:
    about = {
        "site": site,
        "anatomy": anatomy,
        "synthetic": synthetic,
        "probe": "linear",
        "device": "old",
    }
    table = pd.DataFrame(about, index=range(count))
    return table.assign(group=[f"{site}:{anatomy}:{i}" for i in range(count)])


def test_new_images_are_compared_with_what_they_should_be_like() -> None:
    reference = pd.concat([rows("A", "breast", 7), rows("B", "breast", 5), rows("B", "liver", 9)])
    known, label = comparable(reference, rows("A", "breast", 3).assign(group=["x", "y", "z"]), 5)
    assert (label, len(known)) == (SAME_SITE, 7)
    other, label = comparable(reference, rows("C", "breast", 3), 5)
    assert (label, len(other)) == (SAME_ANATOMY, 12)
    rest, label = comparable(reference, rows("C", "thyroid", 3), 5)
    assert (label, len(rest)) == (EVERYTHING, 21)


def test_images_of_one_probe_are_compared_with_that_probe() -> None:
    linear, convex = (
        rows("A", "breast", 7).assign(probe="linear"),
        rows("A", "breast", 6).assign(probe="convex"),
    )
    convex["group"] += "c"
    elsewhere = rows("B", "breast", 5).assign(probe="convex")
    reference = pd.concat([linear, convex, elsewhere], ignore_index=True)

    def choice(site: str, probe: str | None, enough: int) -> tuple[str, int]:
        new = rows(site, "breast", 3).assign(probe=probe, group=["x", "y", "z"])
        part, label = comparable(reference, new, enough, ["probe"])
        return label, len(part)

    assert choice("A", "convex", 5) == (SAME_SITE, 6)
    assert choice("A", "convex", 7) == (SAME_KIND, 11)  # other sites' convex images too
    assert choice("C", "linear", 5) == (SAME_KIND, 7)
    assert choice("A", None, 5) == (SAME_ANATOMY, 18)  # a kind that nobody has


def test_images_of_a_scanner_that_is_known_are_compared_with_it() -> None:
    old, new = rows("A", "breast", 7), rows("A", "breast", 6).assign(device="new")
    new["group"] += "n"
    reference = pd.concat([old, new], ignore_index=True)
    arriving = rows("A", "breast", 3).assign(group=["x", "y", "z"], device="new")
    part, label = comparable(reference, arriving, 5)
    assert (label, set(part["device"])) == (SAME_SCANNER, {"new"})
    assert comparable(reference, arriving, 7)[1] == SAME_SITE  # too few of it
    both = pd.concat([arriving, arriving.assign(device="old", group=["p", "q", "r"])])
    assert comparable(reference, both, 5)[1] == SAME_SITE  # the whole site
    unseen, label = comparable(reference, arriving.assign(device="unseen"), 5)
    assert (label, len(unseen)) == (SAME_SITE, 13)


def test_a_patient_who_came_back_and_phantoms_are_no_reference() -> None:
    reference = pd.concat([rows("A", "breast", 7), rows("phantom", "breast", 9, synthetic=True)])
    known, _ = comparable(reference, rows("A", "breast", 2), 5)
    assert known["group"].tolist() == [f"A:breast:{i}" for i in range(2, 7)]
