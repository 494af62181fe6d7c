"""The steps of a monitoring run, one after the other: every decision, what is kept, and the pages
that tell of it.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from arl.cli import main
from arl.corpus.batch_summary import BatchSummary
from arl.corpus.manifest import batch_folders, read_manifest
from arl.corpus.selection import select
from arl.corpus.shard_reader import read_images
from arl.evaluation.decision import Decision, Settings
from arl.files import tree_hash
from arl.ingest.inbox import list_batches
from arl.monitoring.drift_result import DriftResult
from arl.monitoring.journal import BatchDecision, Journal, LogEntry, held_runs
from arl.monitoring.runs import begin, current
from arl.params import Params
from arl.stages.close_run import close_run
from arl.stages.compare import compare
from arl.stages.decide import decide
from arl.stages.take_batch import take_batch
from arl.storage.registry import Registry


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARL_HASH_KEY_FILE", raising=False)
    monkeypatch.setenv("ARL_HASH_KEY", "7e1f90ac4b2d8365c0f7a91e5d3b8246")


class Loop:
    """A project whose runs are carried out step by step."""

    def __init__(
        self, params: Params, folder: Path, registry: str, deliver: Callable[..., Path]
    ) -> None:
        self.params, self.folder, self.registry, self._deliver = params, folder, registry, deliver
        self.inbox, self.corpus, self.monitor = (
            folder / "inbox",
            folder / "data",
            folder / "monitor",
        )
        self.journal = Journal(self.monitor)
        self.inbox.mkdir()

    def deliver(self, name: str, **changes: Any) -> Path:
        return self._deliver(self.inbox, name, **changes)

    def take_batch(self, owner: str = "") -> None:
        take_batch(
            self.params, str(self.inbox), corpus=self.corpus, monitor=self.monitor, owner=owner
        )

    def compare(self) -> None:
        compare(self.params, corpus=self.corpus, registry=self.registry, monitor=self.monitor)

    def decide(self) -> None:
        decide(self.params, corpus=self.corpus, monitor=self.monitor)

    def close_run(self, error: str = "") -> None:
        close_run(
            self.params,
            corpus=self.corpus,
            registry=self.registry,
            monitor=self.monitor,
            error=error,
        )

    def run(self) -> BatchDecision:
        """All steps but a training; the decision."""
        for step in (self.take_batch, self.compare, self.decide, self.close_run):
            step()
        return self.decisions[-1].decision

    @property
    def decisions(self) -> list[LogEntry]:
        return [entry for entry in self.journal.entries() if entry.decision is not None]

    @property
    def words(self) -> list[str]:
        """The sentences of the last decision."""
        return self.decisions[-1].words

    def alias(self, name: str) -> str:
        """The name of a batch in the log."""
        listed = list_batches(str(self.inbox), 0, 0)
        return next(batch.alias for batch in listed if batch.name == f"clinic/{name}")

    @property
    def batches(self) -> list[str]:
        return [folder.relative_to(self.corpus).as_posix() for folder in batch_folders(self.corpus)]


@pytest.fixture
def loop(
    lenient: Params,
    make_run: Callable[..., Any],
    tiny_corpus: Path,
    tmp_path: Path,
    deliver: Callable[..., Path],
) -> Loop:
    """A corpus of one site and a champion that was released on it."""
    params = replace(
        lenient,
        data=replace(lenient.data, workers=0),
        watch=replace(lenient.watch, source="picture-table", cooldown_hours=1.0),
        drift=replace(lenient.drift, min_images=30),
    )
    run = make_run(params)
    run.judge()
    run.publish()
    shutil.copytree(tiny_corpus, tmp_path / "data")
    return Loop(params, tmp_path, str(run.registry), deliver)


def champion_of(loop: Loop) -> str:
    return str(Registry(loop.registry, None).champion())


def test_a_batch_like_the_others_is_kept_and_starts_nothing(loop: Loop) -> None:
    loop.deliver("week-1")
    decided = loop.run()
    assert decided.word == "no-drift"
    [run] = (loop.monitor / "runs").iterdir()
    assert loop.batches == ["clinic/0000", f"picture-table/{run.name}"]
    assert decided.batches == [f"picture-table/{run.name}"]
    assert (decided.incoming, decided.num_files, decided.counts.images) == (
        loop.alias("week-1"),
        61,
        60,
    )
    assert loop.words[0].startswith(f"{loop.alias('week-1')} arrived with 61 files (")
    assert "60 of 60 inputs were accepted, as 60 images; 0 went into quarantine" in loop.words[0]
    assert any("did not move" in words for words in loop.words)
    assert champion_of(loop) in loop.words[-1]
    assert current(loop.monitor) is None
    assert {path.name for path in run.iterdir()} >= {
        "drift",
        "validation",
        "decision.json",
        "index.html",
    }
    assert not (run / "corpus").exists()
    rows = read_manifest(loop.corpus)
    assert set(rows[rows["source"] == "picture-table"]["site"]) == {"clinic"}


@pytest.mark.slow
def test_the_same_batch_is_not_looked_at_twice(loop: Loop) -> None:
    batch = loop.deliver("week-1")
    loop.run()
    before = tree_hash(loop.corpus), loop.journal.file.read_bytes()
    loop.run()
    assert (tree_hash(loop.corpus), loop.journal.file.read_bytes()) == before
    shutil.copytree(batch, loop.inbox / "clinic/again")
    (loop.inbox / "clinic/again.complete").touch()
    assert loop.run().word == "duplicate"
    assert len(list((loop.monitor / "runs").iterdir())) == 1
    told = loop.journal.file.read_bytes()
    loop.run()
    assert loop.journal.file.read_bytes() == told  # once
    assert tree_hash(loop.corpus) == before[0]


@pytest.mark.slow
def test_another_gain_asks_for_a_training_once_in_the_cool_down(loop: Loop) -> None:
    loop.deliver("week-1", gain=1.5)
    decided = loop.run()
    assert decided.word == "retrain"
    assert decided.shifts[0].drifted
    assert any("moved away from" in words for words in loop.words)
    loop.deliver("week-2", gain=1.5, seed=2)
    cooling = loop.run()
    assert cooling.word == "cooling-down"
    assert "less than 1 h ago (watch.cooldown_hours)" in loop.words[-1]
    assert cooling.batches[0] in loop.batches  # kept all the same
    # when the cool-down is over, the batch is looked at again without a new one
    loop.run()
    assert len(loop.decisions) == 2
    loop.params = replace(loop.params, watch=replace(loop.params.watch, cooldown_hours=0.0))
    again = loop.run()
    assert (again.word, again.incoming) == ("retrain", None)
    assert again.batches == cooling.batches
    assert loop.words[0] == f"Batches that waited are tested with it: {cooling['batches'][0]}."
    assert len(loop.batches) == 3


@pytest.mark.slow
def test_few_patients_wait_for_the_next_batch(loop: Loop) -> None:
    loop.deliver("week-1", patients=10)
    first = loop.run()
    assert first.word == "too-few"
    assert loop.run() == first  # nothing is looked at again for itself
    loop.deliver("week-2", patients=10, seed=2)
    second = loop.run()
    assert second.word == "no-drift"
    assert second.batches[:1] == first.batches
    assert second.images == 40


@pytest.mark.slow
def test_the_reference_is_what_the_champion_was_trained_on(loop: Loop) -> None:
    loop.deliver("week-1")
    loop.run()
    baseline = loop.journal.entries()[0]
    assert (baseline.event, baseline.champion, baseline.trained_on) == (
        "baseline",
        champion_of(loop),
        ["clinic/0000"],
    )
    loop.deliver("week-2", seed=2)
    loop.run()
    [_, second] = sorted((loop.monitor / "runs").iterdir())
    drift = DriftResult.read(second / "drift" / "drift.json")
    assert drift.batches == [f"picture-table/{second.name}"]
    assert drift.reference_patients == 18  # the training part of clinic/0000; week-1 does not count


@pytest.mark.parametrize(
    ("torn", "reason"),
    [
        (60, "60 of its 60 inputs cannot be accepted (100%)"),
        (40, "40 of its 60 inputs cannot be accepted (67%)"),
    ],
)
def test_a_corrupt_batch_is_refused_and_touches_nothing(loop: Loop, torn: int, reason: str) -> None:
    batch = loop.deliver("week-1", torn=torn)
    before = tree_hash(loop.corpus), tree_hash(batch)
    decided = loop.run()
    assert decided.word == "refused"
    assert reason in loop.words[1]
    assert decided.batches == []
    assert (tree_hash(loop.corpus), tree_hash(batch)) == before
    loop.deliver("week-2", torn=2, seed=2)
    assert loop.run().word == "no-drift"


def test_phantoms_are_called_synthetic(loop: Loop) -> None:
    loop.params = replace(loop.params, watch=replace(loop.params.watch, source="phantom-table"))
    loop.deliver("week-1")
    loop.run()
    assert "inputs were accepted, as 60 synthetic images;" in loop.words[0]


def test_a_batch_without_its_table_is_refused(loop: Loop) -> None:
    batch = loop.deliver("week-1")
    (batch / "pictures.csv").unlink()
    decided = loop.run()
    assert decided.word == "refused"
    assert "pictures.csv does not exist" in loop.words[1]


@pytest.mark.slow
def test_a_batch_that_breaks_a_rule_of_the_corpus_is_refused(loop: Loop) -> None:
    batch = loop.deliver("week-1")
    for file in batch.glob("*.png"):
        cv2.imwrite(str(file), np.full((40, 48), hash(file.name) % 2 + 254, np.uint8))
    loop.params = replace(loop.params, watch=replace(loop.params.watch, max_refused=1.0))
    before = tree_hash(loop.corpus)
    decided = loop.run()
    assert decided.word == "refused"
    assert tree_hash(loop.corpus) == before


def test_a_half_uploaded_batch_is_left_alone(
    loop: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.deliver("week-1")
    (loop.inbox / "clinic/week-1.complete").write_text("99")
    loop.take_batch()
    assert (
        "is left alone: its marker announces 99 files and there are 61" in capsys.readouterr().out
    )
    assert current(loop.monitor) is None
    assert loop.journal.entries() == []
    (loop.inbox / "clinic/week-1.complete").write_text("61")
    assert loop.run().word == "no-drift"


@pytest.mark.slow
def test_a_batch_that_changes_while_it_is_read_is_looked_at_anew(loop: Loop) -> None:
    batch = loop.deliver("week-1")
    loop.take_batch()
    run = current(loop.monitor)
    assert run is not None
    (run.folder / "intake.json").unlink()  # killed before it was done
    cv2.imwrite(
        str(batch / "0.png"), np.random.default_rng(99).integers(40, 200, (40, 48), np.uint8)
    )
    loop.take_batch()
    assert current(loop.monitor) is None
    assert not run.folder.exists()
    assert loop.run().word == "no-drift"


def test_mistakes_in_the_settings_are_no_fault_of_the_batch(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.deliver("week-1")
    good = loop.params
    for source, message in (("bus-bra", "one public dataset"), ("nothing", "has no reader")):
        loop.params = replace(good, watch=replace(good.watch, source=source))
        with pytest.raises(ValueError, match=message):
            loop.take_batch()
    loop.params = good
    monkeypatch.delenv("ARL_HASH_KEY")
    with pytest.raises(ValueError, match="ARL_HASH_KEY"):
        loop.take_batch()
    assert current(loop.monitor) is None
    assert loop.journal.entries() == []


def test_without_a_champion_there_is_nothing_to_compare_with(loop: Loop) -> None:
    loop.deliver("week-1")
    loop.registry = str(loop.folder / "empty")
    loop.take_batch()
    with pytest.raises(ValueError, match="has no champion to compare new data with"):
        loop.compare()


@pytest.mark.slow
def test_every_step_twice_is_every_step_once(loop: Loop) -> None:
    loop.deliver("week-1", gain=1.5)
    for step in (loop.take_batch, loop.compare, loop.decide):
        step()
        before = tree_hash(loop.corpus), tree_hash(loop.monitor / "runs"), loop.journal.entries()
        step()
        assert (
            tree_hash(loop.corpus),
            tree_hash(loop.monitor / "runs"),
            loop.journal.entries(),
        ) == before
    run = current(loop.monitor)
    assert run is not None
    loop.close_run()
    begin(run)  # killed between its pages and its end
    before_log = loop.journal.file.read_bytes()
    loop.close_run()
    assert loop.journal.file.read_bytes() == before_log
    assert current(loop.monitor) is None


def test_a_failure_is_tried_again_and_set_aside_at_last(loop: Loop) -> None:
    loop.deliver("week-1")
    loop.take_batch()
    for attempt in range(1, 4):
        loop.close_run(error="dvc repro failed: no GPU")
        assert (current(loop.monitor) is None) == (attempt == 3)
    entries = loop.journal.entries()
    assert [entry.event for entry in entries] == ["failed"] * 3 + ["stuck"]
    assert (
        entries[0].words[0].endswith("failed: dvc repro failed: no GPU; the next poll resumes it.")
    )
    assert f"`arl retry {entries[3].run}`" in entries[3].words[0]
    assert loop.batches == ["clinic/0000"]
    loop.take_batch()
    assert current(loop.monitor) is None  # not begun again by itself
    loop.deliver("week-2", seed=2)
    assert loop.run().word == "no-drift"  # other batches go on
    loop.journal.append("retry", ["The GPU is back."], run=entries[3].run, person="eve")
    assert loop.run().word == "no-drift"
    assert len(loop.batches) == 3
    assert loop.decisions[-1].run == entries[3].run  # the same run


def test_two_owners_of_one_run(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    loop.deliver("week-1")
    loop.take_batch(owner="job-1")
    loop.take_batch(owner="job-2")
    [told] = loop.journal.entries()
    assert told.decision.word == "already-running"
    assert told.words[0].startswith("job-2 found run ")
    run = current(loop.monitor)
    assert run is not None
    assert run.owner == "job-1"
    os.utime(loop.monitor / "open.json", (0, 0))  # job-1 gave no sign for a long time
    loop.take_batch(owner="job-2")
    taken = current(loop.monitor)
    assert taken is not None
    assert (taken.name, taken.owner) == (run.name, "job-2")


@pytest.mark.slow
def test_what_came_of_a_training_is_told_once(loop: Loop) -> None:
    loop.deliver("week-1", gain=1.5)
    for step in (loop.take_batch, loop.compare, loop.decide):
        step()
    before = champion_of(loop)
    verdict = loop.folder / "verdict"
    settings = Settings(
        bootstrap=2,
        alpha=0.05,
        min_patients=30,
        min_slice_patients=20,
        max_trials=20,
        max_calibration_error=0.1,
        seed=0,
    )
    judged = Decision("reject", ["lv: worse."], {}, settings, notes=["Synthetic images in lv."])
    judged.write(verdict / Decision.FILE)
    close_run(
        loop.params,
        corpus=loop.corpus,
        registry=loop.registry,
        monitor=loop.monitor,
        verdict=verdict,
    )
    outcome = loop.journal.entries()[-1]
    assert (outcome.event, outcome.outcome.verdict, outcome.outcome.champion) == (
        "outcome",
        "reject",
        before,
    )
    assert outcome.words == [
        f"The challenger was not promoted (reject): release {before} stays in use.",
        "lv: worse.",
        "Synthetic images in lv.",
    ]
    assert outcome.trained_on is None


@pytest.mark.slow
def test_a_promotion_makes_the_corpus_the_new_reference(
    loop: Loop, make_run: Callable[..., Any]
) -> None:
    loop.deliver("week-1", gain=1.5, device="bright")
    for step in (loop.take_batch, loop.compare, loop.decide):
        step()
    before = champion_of(loop)
    challenger = make_run(loop.params, seed=1)
    challenger.judge()
    challenger.publish()
    loop.close_run()
    outcome = loop.journal.entries()[-1]
    assert (outcome.outcome.verdict, outcome.outcome.before, outcome.champion) == (
        "promote",
        before,
        champion_of(loop),
    )
    assert outcome.champion != before
    assert outcome.trained_on == loop.batches
    loop.deliver("week-2", gain=1.5, seed=2, device="bright")
    again = loop.run()  # such pictures are known now
    assert again.word == "no-drift"
    assert again.shifts[0].compared_with == "its own training images of the same scanner"


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), pytest.param(390, True, marks=pytest.mark.slow)]
)
def test_pages_open_without_a_network(
    loop: Loop, make_run: Callable[..., Any], open_page: Callable[..., Any], width: int, dark: bool
) -> None:
    loop.deliver("week-1")
    loop.run()
    loop.deliver("week-2", torn=60, seed=2)
    loop.run()
    loop.deliver("week-3", gain=1.5, seed=3)
    for step in (loop.take_batch, loop.compare, loop.decide):
        step()
    challenger = make_run(loop.params, seed=1)
    challenger.judge()
    challenger.publish()
    loop.close_run()
    runs = sorted((loop.monitor / "runs").iterdir())
    texts = []
    for page in [loop.monitor / "index.html", *(run / "index.html" for run in runs)]:
        opened = open_page(page, width, dark, page.with_suffix(".png"))
        assert (opened.errors, opened.requests, opened.overflow) == ([], [], 0), page
        texts.append(opened.text)
    index, quiet, refused, trained = texts
    assert f"elease {champion_of(loop)} is in use" in index
    for word in ("no-drift", "refused", "retrain", "promote", loop.alias("week-3")):
        assert word in index
    assert "No drift" in quiet
    assert "60 of its 60 inputs cannot be accepted" in refused
    assert "No image was accepted" in refused
    assert "The challenger passed the gate" in trained
    html = (runs[2] / "index.html").read_text(encoding="utf-8")
    assert html.count("<img ") >= 24, "12 new images and 12 known ones"
    assert html.count('role="img"') > 5, "the map of embeddings and the histograms"
    for page in (f"runs/{run.name}/index.html" for run in runs):
        assert page in (loop.monitor / "index.html").read_text(encoding="utf-8")
    for stage in ("validation", "drift"):
        page = (runs[2] / stage / "index.html").read_text(encoding="utf-8")
        assert 'href="../index.html"' in page, "back to the run"
        assert 'href="../../../index.html"' in page, "and to all runs"


def label_table(batch: Path, label: Callable[[int], str], split: str = "") -> None:
    """Give the pictures of a delivery labels and a split, as a sender may."""
    file = batch / "pictures.csv"
    header, *rows = file.read_text().splitlines()
    fields = header.split(",")
    changed = []
    for number, row in enumerate(rows):
        cells = dict(zip(fields, row.split(","), strict=True))
        cells |= {"label": label(number) if cells["anatomy"] == "breast" else "", "split": split}
        changed.append(",".join(cells[name] for name in fields))
    file.write_text("\n".join([header, *changed]) + "\n")


def truth(number: int) -> str:
    """The label that the brightness of a picture of `deliver` shows."""
    return "malignant" if (number // 10) % 2 else "benign"


@pytest.mark.parametrize("split", ["test", "val", ""])
def test_what_arrives_never_judges(loop: Loop, split: str) -> None:
    """The sender's table does not choose the images of the gate."""
    label_table(loop.deliver("week-1"), truth, split)
    loop.take_batch()
    run = current(loop.monitor)
    assert run is not None
    rows = select(run.corpus, sources=["picture-table"], protocols={})
    assert set(rows["split"]) == {"train"}
    summary = BatchSummary.read(run.corpus / str(run.new))
    assert summary.splits == {name: {"train": 60, "val": 0, "test": 0} for name in summary.splits}


def held(loop: Loop) -> str:
    """A batch of test images is held; the name of its run."""
    batch = loop.deliver("week-1")
    rows = select(loop.corpus, sources=[], protocols={})
    test = rows[rows["split"] == "test"]
    for number, image in enumerate(read_images(loop.corpus, test)):
        cv2.imwrite(str(batch / f"{number}.png"), image)
    assert loop.run().word == "held"
    [name] = held_runs(loop.journal.entries())
    return name


def test_copies_of_test_images_are_held_and_other_batches_go_on(loop: Loop) -> None:
    before = loop.batches
    name = held(loop)
    assert "near-identical to test images" in loop.words[1]
    assert f"`arl approve {name}`" in loop.words[-1]
    assert loop.batches == before
    assert current(loop.monitor) is None
    loop.take_batch()
    assert current(loop.monitor) is None  # it waits for a person, not for the next poll
    loop.deliver("week-2", seed=2)
    assert loop.run().word == "no-drift"
    assert held_runs(loop.journal.entries()) == [name]


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_a_person_answers_with_name_and_reason(loop: Loop, answer: str) -> None:
    name = held(loop)
    words = [
        answer,
        name,
        "--person",
        "eve",
        "--reason",
        "read again",
        "--monitor",
        str(loop.monitor),
    ]
    assert main(words) == 0
    assert main(words) == 1  # once
    decision = loop.run()
    [entry] = loop.journal.of_run(name, "approved" if answer == "approve" else "rejected")
    assert (entry.person, "read again" in entry.words[0]) == ("eve", True)
    if answer == "approve":
        assert decision.word in ("no-drift", "retrain")
        assert loop.batches == ["clinic/0000", f"picture-table/{name}"]
    else:
        assert decision.word == "refused"
        assert loop.batches == ["clinic/0000"]
    assert loop.decisions[-1].run == name
    assert any("eve" in line for line in loop.words)
    assert held_runs(loop.journal.entries()) == []
    assert current(loop.monitor) is None
    assert loop.journal.problems() == []


def test_approval_may_be_asked_for_every_batch(loop: Loop) -> None:
    loop.params = replace(loop.params, watch=replace(loop.params.watch, approval="manual"))
    loop.deliver("week-1")
    assert loop.run().word == "held"
    [name] = held_runs(loop.journal.entries())
    assert (
        main(["approve", name, "--person", "eve", "--reason", "ok", "--monitor", str(loop.monitor)])
        == 0
    )
    assert loop.run().word == "no-drift"


def test_an_odd_batch_is_refused_and_the_next_one_taken(loop: Loop) -> None:
    batch = loop.deliver("a-week")
    (batch / "link").symlink_to("/etc/passwd")
    loop.deliver("b-week", seed=2)
    assert loop.run().word == "no-drift"
    words = [entry.decision.word for entry in loop.decisions if entry.decision]
    assert words == ["refused", "no-drift"]
    assert "is a link" in loop.decisions[0].words[0]
    assert "a-week" not in loop.journal.file.read_text()  # a folder's name may be a patient's
    before = loop.journal.file.read_bytes()
    loop.run()
    assert loop.journal.file.read_bytes() == before


def test_a_damaged_log_line_is_told_once_and_the_loop_goes_on(loop: Loop) -> None:
    loop.deliver("week-1")
    loop.run()
    edited = loop.journal.file.read_text().replace("no-drift", "refused")
    loop.journal.file.write_text(edited + "\xff\n")
    loop.deliver("week-2", seed=2)
    assert loop.run().word == "no-drift"
    loop.run()
    damaged = [entry for entry in loop.journal.entries() if entry.event == "damaged"]
    assert len(damaged) == 1
    assert any("line 3 of" in words for words in damaged[0].words)


def test_an_outage_is_no_attempt(loop: Loop) -> None:
    loop.deliver("week-1")
    loop.take_batch()
    for _ in range(5):
        close_run(
            loop.params,
            corpus=loop.corpus,
            registry=loop.registry,
            monitor=loop.monitor,
            outage="compare failed: the store cannot be reached",
        )
    assert [entry.event for entry in loop.journal.entries()] == ["outage"]
    assert loop.run().word == "no-drift"
