from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from arl.evaluation.decision import Decision, Settings, TrialCount
from arl.evaluation.gate import ModelPredictions, PairedTask, decide
from arl.evaluation.measure import Measure
from arl.tasks.classification import Classification
from arl.tasks.segmentation import Segmentation

Tables = Callable[..., list[pd.DataFrame]]
SETTINGS = Settings(
    bootstrap=300,
    alpha=0.05,
    min_patients=30,
    min_slice_patients=20,
    max_trials=20,
    max_calibration_error=1.0,
    seed=0,
)


def counted(number: int = 1, settings: Settings = SETTINGS, **changes) -> TrialCount:
    basis = TrialCount(
        number=number,
        limit=settings.max_trials,
        level=settings.level(number),
        test_set="breast, version 1",
        series="0" * 16,
        frozen=True,
    )
    return replace(basis, **changes)


def measure_of(table: pd.DataFrame) -> Measure:
    if "label" not in table:
        return Segmentation("lv")
    return Classification(tuple(name for name in table if name.startswith("score_")))


def model(table: pd.DataFrame | None, release: str | None = None) -> ModelPredictions | None:
    return None if table is None else ModelPredictions(table, threshold=0.5, release=release)


def task(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    best: pd.DataFrame | None = None,
    **changes,
) -> PairedTask:
    basis = PairedTask(
        name="breast",
        measure=measure_of(challenger),
        margin=0.05,
        floor=0.6,
        images=challenger["id"].tolist(),
        challenger=model(challenger),
        champion=model(champion, "champion"),
        best=model(best, "best"),
        trial=counted(),
    )
    return replace(basis, **changes)


def judge(challenger: pd.DataFrame, champion: pd.DataFrame | None, **changes) -> Decision:
    return decide([task(challenger, champion, **changes)], SETTINGS)


def test_a_clearly_worse_model_is_rejected(classifications: Tables) -> None:
    worse, champion = classifications(400, 0.70, 0.92)
    decision = judge(worse, champion)
    assert decision.verdict == "reject"
    assert "The loss is larger than the 0.050 that may be accepted" in decision.reasons[0]
    found = decision.tasks["breast"]
    assert found.difference is not None
    assert found.difference.high < -0.05


def test_an_equal_model_is_promoted_where_there_are_many_patients(classifications: Tables) -> None:
    decision = judge(*classifications(1000, 0.92, 0.92, seed=1))
    assert decision.verdict == "promote"
    assert (
        "1,000 images of 1,000 patients. A loss of 0.050 or more is ruled out."
        in decision.reasons[0]
    )
    found = decision.tasks["breast"]
    assert found.power is not None
    assert found.power > 0.99
    assert found.detectable is not None
    assert found.difference is not None
    # a power of 80 % takes 0.84 standard errors more than half the interval has
    error = (found.difference.high - found.difference.low) / (2 * norm.ppf(1 - SETTINGS.alpha / 2))
    assert found.detectable == pytest.approx(
        (norm.ppf(1 - SETTINGS.alpha / 2) + 0.8416) * error, rel=0.08
    )


def test_an_equal_model_is_inconclusive_where_there_are_few(classifications: Tables) -> None:
    decision = judge(*classifications(40, 0.85, 0.85))
    assert decision.verdict == "inconclusive"
    found = decision.tasks["breast"]
    assert found.power is not None
    assert found.patients_needed is not None
    assert found.power < 0.5
    assert found.patients_needed > 40
    assert (
        f"{found.power:.0%} of the time, and {found.patients_needed:,} patients would make that 80%"
        in decision.reasons[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("area", "share"), [(0.87, 0.05), (0.92, 0.7)])
def test_how_often_models_are_promoted(classifications: Tables, area: float, share: float) -> None:
    """A model worse by the margin rarely, an equal one often: 300 patients, margin 0.05."""
    promoted = []
    for seed in range(60):
        settings = replace(SETTINGS, bootstrap=150, min_slice_patients=999, seed=seed)
        promoted.append(
            decide([task(*classifications(300, area, 0.92, seed=seed))], settings).verdict
            == "promote"
        )
    if area < 0.9:
        assert np.mean(promoted) <= share + 0.03
    else:
        assert np.mean(promoted) >= share


def test_failures_that_few_patients_need_not_show_are_not_promoted(classifications: Tables) -> None:
    """The new model fails every twentieth malignant patient wholly; half of such small test sets
    hold none.
    """
    promoted = []
    for seed in range(60):
        challenger, champion = classifications(40, 0.98, 0.98, seed=seed, shared=0.95)
        fails = (np.random.default_rng(seed).random(40) < 0.05) & (challenger["label"] == 1)
        challenger = challenger.assign(score_1=challenger["score_1"].where(~fails, 0.0))
        promoted.append(
            judge(challenger.assign(score_0=1 - challenger["score_1"]), champion).verdict
            == "promote"
        )
    assert np.mean(promoted) <= 0.05


def test_patients_count_and_not_images(classifications: Tables) -> None:
    """Twenty images of each of forty patients say as much as one, when they all look the same."""
    tables = classifications(40, 0.85, 0.85)
    many = [
        pd.concat([t.assign(id=t["id"] + f"/{i}") for i in range(20)], ignore_index=True)
        for t in tables
    ]
    assert len(many[0]) == 800
    assert judge(*many).verdict == judge(*tables).verdict == "inconclusive"


def test_two_perfect_models_on_few_patients_are_inconclusive(classifications: Tables) -> None:
    decision = judge(*classifications(30, 0.999999, 0.9999999))
    assert decision.verdict == "inconclusive"
    assert decision.tasks["breast"].power == 0
    assert decision.tasks["breast"].detectable == pytest.approx(1 - 0.015 ** (1 / 15), abs=5e-4)
    assert "a model that fails 24.4% of patients may fail none of so few" in decision.reasons[0]
    assert decision.tasks["breast"].patients_needed == 164  # 82 pairs of two patients each
    assert judge(*classifications(164, 0.999999, 0.9999999)).verdict == "promote"


def test_the_same_predictions_are_the_same_model(classifications: Tables) -> None:
    champion = classifications(30, 0.9)[0]
    assert judge(champion.sample(frac=1, random_state=0), champion).verdict == "promote"


def test_a_first_release_needs_its_lower_limit_above_the_floor(classifications: Tables) -> None:
    good, bad = classifications(60, 0.95, 0.4)
    first = judge(good, None)
    assert first.verdict == "promote"
    assert first.tasks["breast"].challenger.low > 0.6
    refused = judge(bad, None)
    assert refused.verdict == "reject"
    assert "is below the required minimum of 0.600" in refused.reasons[0]
    near = judge(good, None, floor=0.93)
    assert near.verdict == "inconclusive"
    assert near.tasks["breast"].challenger.value > 0.93


def test_a_perfect_model_on_six_patients_is_no_release(classifications: Tables) -> None:
    table = classifications(6, 0.999999)[0]
    decision = judge(table, None)
    assert decision.tasks["breast"].challenger.value == 1
    assert decision.verdict == "inconclusive"
    assert "6 test patients are fewer than the 30 that a release needs" in decision.reasons[1]


def test_a_challenger_needs_as_many_patients_as_a_first_release(classifications: Tables) -> None:
    champion = classifications(20, 0.9)[0]
    assert judge(champion, champion).verdict == "inconclusive"


def test_the_level_falls_with_the_tries_and_the_test_set_is_used_up(
    classifications: Tables,
) -> None:
    tables = classifications(300, 0.92, 0.92, seed=3)
    results = [judge(*tables, trial=counted(n)).tasks["breast"] for n in (1, 2, 20)]
    lows = [result.difference.low for result in results]
    assert lows[0] > lows[1] > lows[2]
    assert results[0].power > results[1].power > results[2].power
    assert results[2].power == results[0].power_last
    assert results[2].power_first == results[0].power
    assert "decision 2 of 20 on test set breast, version 1" in results[1].reasons[0]
    used = judge(*tables, trial=counted(21))
    assert used.verdict == "inconclusive"
    assert "exhausted" in used.reasons[0]
    assert "arl testset renew --task breast" in used.reasons[0]


def test_a_test_set_that_nobody_froze_and_that_changed_judges_nothing(
    classifications: Tables,
) -> None:
    champion = classifications(100, 0.9)[0]
    trial = counted(frozen=False, changed=True)
    decision = judge(champion, champion, trial=trial)
    assert decision.verdict == "inconclusive"
    assert "arl testset add --task breast" in decision.reasons[0]


def test_small_losses_do_not_add_up(segmentations: Tables) -> None:
    """Each step loses less than the margin; the third is far below the first."""
    best, middle, new = segmentations(1000, 0.80, 0.77, 0.74)
    whole = replace(SETTINGS, min_slice_patients=10_000)
    steps = decide([task(new, middle)], whole)
    assert steps.verdict == "promote"
    assert steps.tasks["breast"].best_release == "champion"
    creep = decide([task(new, middle, best)], whole)
    assert creep.verdict == "reject"
    assert "against release best, the best so far" in creep.reasons[1]
    assert creep.tasks["breast"].best_release == "best"
    assert decide([task(best, middle)], whole).tasks["breast"].best_release is None


def test_a_site_whose_cancers_are_all_missed_rejects(classifications: Tables) -> None:
    """The site has one class, so that it has no AUROC."""
    challenger, champion = classifications(400, 0.97, 0.97)
    north = (challenger["label"] == 1) & (np.arange(400) < 60)
    for table in (challenger, champion):
        table["site"] = np.where(north, "north", "south")
    challenger.loc[north, "score_1"] = 0.4 * challenger.loc[north, "score_1"]
    challenger["score_0"] = 1 - challenger["score_1"]
    decision = judge(challenger, champion, margin=0.5, floor=0.5)
    assert decision.verdict == "reject"
    found = next(part for part in decision.tasks["breast"].slices if part.name == "north")
    assert (found.metric, found.worse) == ("sensitivity", True)
    assert any("for site north" in reason for reason in decision.reasons)


def test_a_small_slice_that_is_worse_is_named(classifications: Tables) -> None:
    challenger, champion = classifications(400, 0.97, 0.97)
    site = np.where(np.arange(400) < 12, "tiny", "rest")
    for table in (challenger, champion):
        table["site"] = site
    tiny = challenger["site"] == "tiny"
    challenger.loc[tiny, "score_1"] = 1 - challenger.loc[tiny, "label"].astype(float)
    decision = judge(challenger, champion, margin=0.5, floor=0.5)
    assert any("site tiny is too small to be tested" in reason for reason in decision.reasons)
    assert not any("site rest" in reason for reason in decision.reasons)


def test_groups_of_patients_are_slices(classifications: Tables) -> None:
    challenger, champion = classifications(200, 0.9, 0.9)
    for table in (challenger, champion):
        table["sex"] = ["f", "m"] * 100
        table["age_group"] = "40-60"
    origins = {part.origin for part in judge(challenger, champion).tasks["breast"].slices}
    assert "sex" in origins
    assert "age_group" not in origins  # one group is the whole test set


def test_probabilities_that_mislead_reject(classifications: Tables) -> None:
    strict = replace(SETTINGS, max_calibration_error=0.1)
    champion = classifications(600, 0.9)[0]
    y = champion["label"].to_numpy()
    honest = 1 / (1 + np.exp(-4 * (champion["score_1"] - champion["score_1"].mean())))
    calibrated = champion.assign(score_1=honest, score_0=1 - honest)
    sure = np.where(honest > 0.5, 0.999, 0.001) + 1e-4 * honest
    overconfident = champion.assign(score_1=sure, score_0=1 - sure)
    decision = decide([task(overconfident, None, floor=0.0)], strict)
    result = decision.tasks["breast"].calibration
    assert result.off
    assert result.ece > result.chance
    assert decision.verdict == "reject"
    assert "calibration error" in decision.reasons[-1]
    worse = decide([task(overconfident, calibrated, margin=0.9, floor=0.0)], SETTINGS)
    assert worse.tasks["breast"].calibration.worse
    assert any("Brier score" in reason for reason in worse.reasons)
    assert not decide([task(calibrated, calibrated)], SETTINGS).tasks["breast"].calibration.worse
    assert y.sum() > 0


def test_the_floor_holds_although_the_champion_is_worse(classifications: Tables) -> None:
    decision = judge(*classifications(400, 0.75, 0.70), floor=0.9)
    assert decision.verdict == "reject"
    assert "below the required minimum of 0.900" in decision.reasons[-1]


def test_a_worse_slice_rejects_although_the_whole_is_not_worse(classifications: Tables) -> None:
    challenger, champion = classifications(800, 0.97, 0.92)
    north = challenger["site"] == "north"
    noise = np.random.default_rng(0).random(int(north.sum())) * 0.9
    challenger.loc[north, "score_1"] = 0.5 * challenger.loc[north, "score_1"] + 0.5 * noise
    decision = judge(challenger, champion, margin=0.15)
    assert decision.tasks["breast"].difference is not None
    assert decision.tasks["breast"].difference.low > -0.15
    assert decision.verdict == "reject"
    assert (
        "breast: for site north the new model is worse than the current one" in decision.reasons[-1]
    )
    worse = {(part.origin, part.name): part.worse for part in decision.tasks["breast"].slices}
    assert worse[("site", "north")]
    assert not worse[("site", "south")]


def test_slices_that_are_the_whole_or_too_small_or_of_one_class_are_not_tested(
    classifications: Tables,
) -> None:
    challenger, champion = classifications(200, 0.9, 0.9)
    site = np.r_[["tiny"] * 10, ["benign only"] * 50, ["rest"] * 140]
    site[10:60][challenger["label"][10:60] == 1] = "rest"
    for table in (challenger, champion):
        table["site"] = site
    parts = {
        (part.origin, part.name): part
        for part in judge(challenger, champion).tasks["breast"].slices
    }
    assert {origin for origin, _ in parts} == {"site", "device"}  # one probe only
    assert parts[("site", "tiny")].note == "fewer than 20 patients"
    assert parts[("site", "benign only")].metric == "specificity"
    assert parts[("site", "rest")].metric == "auroc"
    assert parts[("site", "rest")].p_value is not None


@pytest.mark.slow
def test_slices_of_equal_models_share_their_error(classifications: Tables) -> None:
    """Holm: at most one decision in twenty rejects for a slice, however many slices there are."""
    rejected = 0
    for seed in range(40):
        challenger, champion = classifications(240, 0.9, 0.9, seed=seed)
        for table in (challenger, champion):
            table["site"] = [f"s{i % 8}" for i in np.arange(240) // 2]
        decision = decide([task(challenger, champion)], replace(SETTINGS, bootstrap=200))
        rejected += any(part.worse for part in decision.tasks["breast"].slices)
    assert rejected <= 6


def test_dice_is_compared_by_image(segmentations: Tables) -> None:
    worse, champion, equal = segmentations(150, 0.6, 0.8, 0.8)
    assert judge(worse, champion, floor=0.5).verdict == "reject"
    decision = judge(equal, champion, floor=0.5)
    assert decision.verdict == "promote"
    assert "Dice 0.8" in decision.reasons[0]


@pytest.mark.parametrize(("classes", "main"), [(3, "auroc"), (4, "top1")])
def test_several_classes(classifications: Tables, classes: int, main: str) -> None:
    origin = classifications(240, 0.9)[0].drop(columns=["score_0", "score_1"])
    labels = np.arange(240) % classes
    rng = np.random.default_rng(0)

    def scored(strength: float) -> pd.DataFrame:
        s = rng.dirichlet(np.ones(classes), 240) + strength * np.eye(classes)[labels]
        s /= s.sum(axis=1, keepdims=True)
        return origin.assign(label=labels, **{f"score_{c}": s[:, c] for c in range(classes)})

    champion, equal, worse = scored(0.8), scored(0.8), scored(0.1)
    decision = judge(equal, champion, margin=0.1)
    assert decision.verdict == "promote"
    assert decision.tasks["breast"].main_metric == main
    assert judge(worse, champion, margin=0.1).verdict == "reject"


@pytest.mark.parametrize("who", ["new", "current"])
def test_undefined_or_missing_predictions_reject(classifications: Tables, who: str) -> None:
    def spoiled(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Decision:
        challenger, champion = classifications(100, 0.9, 0.9)
        images = challenger["id"].tolist()
        if who == "new":
            return judge(change(challenger), champion, images=images)
        return judge(challenger, change(champion), images=images)

    def nan(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(score_1=table["score_1"].where(table.index != 7))

    for change, reason in {
        nan: f"breast: the {who} model gives 1 predictions that are not a number (clinic:7).",
        lambda t: t.drop(
            index=[3, 4]
        ): f"breast: the {who} model gives no prediction for 2 of 100 test images (clinic:3).",
        lambda t: pd.concat(
            [t, t[:2]]
        ): f"breast: the {who} model has several predictions for 2 images.",
        lambda t: pd.concat(
            [t, t[:1].assign(id="x")]
        ): f"breast: the {who} model has predictions for 1 images outside",
    }.items():
        decision = spoiled(change)
        assert decision.verdict == "reject"
        assert decision.reasons[0].startswith(reason)
        assert decision.tasks["breast"].difference is None


def test_other_labels_and_one_class_reject(classifications: Tables) -> None:
    challenger, champion = classifications(100, 0.9, 0.9)
    decision = judge(challenger, champion.assign(label=1 - champion["label"]))
    assert decision.reasons == [
        "breast: 100 images have another label in the table of the current model"
        " than in the new one's."
    ]
    decision = judge(challenger.assign(label=1), champion.assign(label=1))
    assert decision.verdict == "reject"
    assert "AUROC cannot be measured: no image of class [0] among 100" in decision.reasons[0]


def test_the_worst_task_decides(classifications: Tables) -> None:
    good, few = (
        task(*classifications(1000, 0.92, 0.92, seed=1)),
        task(*classifications(40, 0.85, 0.85), name="lung"),
    )
    bad = task(*classifications(400, 0.7, 0.92), name="thyroid")
    assert decide([good], SETTINGS).verdict == "promote"
    assert decide([good, few], SETTINGS).verdict == "inconclusive"
    decision = decide([good, few, bad], SETTINGS)
    assert decision.verdict == "reject"
    assert list(dict.fromkeys(reason.split(":")[0] for reason in decision.reasons)) == [
        "breast",
        "lung",
        "thyroid",
    ]
    assert [result.verdict for result in decision.tasks.values()] == [
        "promote",
        "inconclusive",
        "reject",
    ]


def test_the_same_input_gives_the_same_decision(classifications: Tables) -> None:
    tables = classifications(120, 0.9, 0.9, images=2)
    assert judge(*tables) == judge(*tables)


def test_what_the_gate_cannot_judge(classifications: Tables) -> None:
    table = classifications(30, 0.9)[0]
    with pytest.raises(ValueError, match="one entry for each task, got"):
        decide([], SETTINGS)
    with pytest.raises(ValueError, match="one entry for each task, got"):
        decide([task(table, None), task(table, None)], SETTINGS)
    with pytest.raises(ValueError, match="margin of 0 can never be shown"):
        task(table, None, margin=0)
    with pytest.raises(ValueError, match=r"alpha 1\.5"):
        replace(SETTINGS, alpha=1.5)
