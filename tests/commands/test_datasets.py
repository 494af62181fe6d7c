"""The list of datasets: what readers state, what the corpus holds, what a folder is."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from arl.commands.datasets import datasets
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_writer import BatchWriter
from arl.ingest import readers
from arl.ingest.batches import write_inputs
from arl.ingest.readers import fallmud


def muscle(root: Path) -> Path:
    for folder in ("images", "fascicle_masks"):
        (root / "NeilCronin" / folder).mkdir(parents=True)
        picture = np.random.default_rng(0).integers(0, 250, (40, 50), dtype=np.uint8)
        cv2.imwrite(str(root / f"NeilCronin/{folder}/1.tif"), picture)
    return root


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    with BatchWriter(
        tmp_path / "data",
        "our-muscle",
        "2026",
        64,
        origin=BatchOrigin(licence="", citation="", reader="fallmud"),
    ) as writer:
        write_inputs(fallmud.read(muscle(tmp_path / "drop/FALLMUD")), writer)
    return tmp_path / "data"


def test_every_reader_has_its_line_and_the_corpus_is_counted(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets([], corpus=corpus)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(readers.names())]] == readers.names()
    (line,) = [line for line in lines if line.startswith("fallmud")]
    assert "lower leg muscle" in line
    assert line.endswith("our-muscle/2026: 1 images of 1 inputs, 0 refused]")


def test_details_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets(["camus", "folder"], corpus=tmp_path / "absent")
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 100
    flat = " ".join(told.split())
    for expected in (
        "Licence CC BY-NC-SA 4.0",
        "Obtain https://www.creatis.insa-lyon.fr",
        "Layout <root>/database_nifti/patient0001",
        "Patient The folder; 500 patients",
        "Options --anatomy --probe --device --site",
        "Corpus no batch",
    ):
        assert expected in flat


def test_what_a_folder_holds(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busbra = tmp_path / "drop/BUSBRA"
    busbra.mkdir()
    (busbra / "bus_data.csv").write_text("ID\n")
    (tmp_path / "drop/empty").mkdir()
    datasets([], corpus=corpus, root=tmp_path / "drop")
    lines = capsys.readouterr().out.splitlines()
    assert (
        f"fallmud: 1 inputs; arl ingest fallmud --root {tmp_path}/drop/FALLMUD --corpus {corpus}"
        in lines
    )
    assert any(
        line.startswith(f"bus-bra: {busbra} resembles this dataset, but: ") for line in lines
    )
    assert {line.split(":")[0] for line in lines} == {"bus-bra", "fallmud"}


def test_the_folder_itself_may_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets(["fallmud"], corpus=tmp_path, root=muscle(tmp_path / "muscles"))
    assert capsys.readouterr().out.startswith("fallmud: 1 inputs; arl ingest fallmud")


def test_a_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets([], corpus=tmp_path, root=tmp_path)
    assert "has the layout of a dataset" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="absent is not a folder"):
        datasets([], corpus=tmp_path, root=tmp_path / "absent")


def test_a_name_without_a_reader(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source 'camuss' has no reader; choose one of: bus-bra"):
        datasets(["camuss"], corpus=tmp_path)
