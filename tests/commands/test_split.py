"""Split protocols: fractions, folds, tables; no patient and no cluster is divided."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from arl.commands.split import split
from arl.corpus import manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.checks.invariants import check_corpus
from arl.corpus.shard_writer import BatchWriter
from arl.corpus.splits import read_split

PATIENTS, IMAGES = 40, 3


def speckle(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(20, 200, (40, 48))
    return coarse.astype(np.uint8)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """40 patients, one in five malignant, in two batches; patients 0 and 1 share a picture."""
    for batch in range(2):
        origin = BatchOrigin(licence="", citation="")
        with BatchWriter(tmp_path, "clinic", f"000{batch}", 64, origin=origin) as writer:
            for patient in range(batch, PATIENTS, 2):
                for image in range(IMAGES):
                    shared = patient < 2 and image == 0
                    writer.accept(
                        speckle(0 if shared else 100 * patient + image + 1),
                        key=f"{patient}-{image}",
                        anatomy="breast",
                        patient=str(patient),
                        label="malignant" if patient % 5 == 0 else "benign",
                    )
    return tmp_path


def splits(corpus: Path, protocol: str) -> pd.DataFrame:
    rows = manifest.read_manifest(corpus)
    return rows.assign(split=read_split(corpus, rows, {"clinic": protocol}))


def divided(rows: pd.DataFrame) -> int:
    return int((rows.groupby("patient")["split"].nunique() > 1).sum())


def test_folds_cover_every_patient_once_with_equal_classes(corpus: Path) -> None:
    split("clinic", corpus=corpus, protocol="cv", method="folds", folds=4)
    tests = []
    for k in range(1, 5):
        rows = splits(corpus, f"cv-{k}")
        assert divided(rows) == 0
        assert set(rows["split"]) == {"train", "val", "test"}
        test = rows[rows["split"] == "test"]
        assert test.loc[test["label"] == "malignant", "patient"].nunique() == 2
        assert rows.loc[rows["patient"].isin(["clinic:0", "clinic:1"]), "split"].nunique() == 1
        tests.append(set(test["patient"]))
    assert set.union(*tests) == set(rows["patient"])
    assert sum(map(len, tests)) == PATIENTS


def test_fractions_hold_for_each_class(corpus: Path) -> None:
    split("clinic", corpus=corpus, protocol="half", train=0.5, val=0.25)
    rows = splits(corpus, "half")
    assert divided(rows) == 0
    patients = rows.drop_duplicates("patient")
    counts = patients.groupby("label")["split"].value_counts().unstack()
    assert counts.loc["malignant"].tolist() == pytest.approx([2, 4, 2], abs=1)
    assert counts.loc["benign"].sum() == 32


def test_all_train_and_the_corpus_stays_valid(corpus: Path) -> None:
    before = {f: f.read_bytes() for f in corpus.rglob("*") if f.is_file()}
    split("clinic", corpus=corpus, protocol="everything", method="all-train")
    assert set(splits(corpus, "everything")["split"]) == {"train"}
    assert all(file.read_bytes() == content for file, content in before.items())
    withheld = pd.DataFrame({"id": []})
    findings = check_corpus(corpus, {"clinic": "everything"}, withheld)
    assert [f.rule for f in findings if f.failed and f.severity == "critical"] == []


def test_a_table_by_patient(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "splits.csv"
    lines = [f"{n},{'testing' if n in (0, 1) else 'Train'}" for n in range(PATIENTS)]
    file.write_text("\n".join(["patient,split", *lines]))
    split("clinic", corpus=corpus, protocol="external", method="table", table=file)
    rows = splits(corpus, "external")
    assert set(rows.loc[rows["split"] == "test", "patient"]) == {"clinic:0", "clinic:1"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["patient,split", "0,train"], "no split for 117 rows"),
        (["patient,split", "0,elsewhere"], "is not train, val or test"),
        (["patient,split", "0,train", "0,test"], "into two splits"),
        (["name,split", "0,train"], "either `id` or `patient`"),
        (
            ["patient,split", "0,train", *(f"{n},test" for n in range(1, PATIENTS))],
            "divides clinic:0",
        ),
    ],
)
def test_tables_that_cannot_be_used(
    corpus: Path, tmp_path: Path, lines: list[str], message: str
) -> None:
    file = tmp_path / "splits.csv"
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        split("clinic", corpus=corpus, protocol="bad", method="table", table=file)
    assert not list(corpus.rglob("bad.parquet"))


def test_a_protocol_is_written_once_and_its_name_is_plain(corpus: Path) -> None:
    with pytest.raises(FileExistsError, match=r"default\.parquet exists"):
        split("clinic", corpus=corpus, protocol="default")
    with pytest.raises(ValueError, match="lower-case"):
        split("clinic", corpus=corpus, protocol="../x")
    with pytest.raises(ValueError, match="no source 'other'"):
        split("other", corpus=corpus, protocol="x")
    with pytest.raises(ValueError, match="at least 3"):
        split("clinic", corpus=corpus, protocol="x", method="folds", folds=2)
    with pytest.raises(ValueError, match="must not be negative"):
        split("clinic", corpus=corpus, protocol="x", train=0.9, val=-0.2)
    assert pq.read_table(corpus / "clinic/0000/splits/default.parquet").num_rows == 60
