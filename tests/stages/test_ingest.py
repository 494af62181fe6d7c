"""The ingest stage and its command line: counts, errors in one sentence, no partial batch."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from arl.command_spec import read_command
from arl.corpus import manifest
from arl.corpus.batch_summary import BatchSummary
from arl.files import read_json, tree_hash
from arl.ingest import readers
from arl.ingest.refusals import TooManyRefusedError
from arl.ingest.source import Options
from arl.params import Params
from arl.settings import Thinning
from arl.stages.ingest import ingest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """FALLMUD in miniature: eight images, one without a mask."""
    root = tmp_path / "FALLMUD"
    for folder in ("images", "fascicle_masks"):
        (root / "NeilCronin" / folder).mkdir(parents=True)
    for number in range(8):
        image = np.random.default_rng(number).integers(0, 256, (120, 90), dtype=np.uint8)
        cv2.imwrite(str(root / f"NeilCronin/images/{number}.tif"), image)
        if number:
            cv2.imwrite(
                str(root / f"NeilCronin/fascicle_masks/{number}.tif"), (image > 200) * np.uint8(255)
            )
    return root


@pytest.fixture
def params(tiny_params: Params) -> Params:
    tiny_params.data.workers = 0
    tiny_params.data.store_size = 64
    return tiny_params


def test_a_batch_is_written_and_its_counts_are_told(
    params: Params, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "data"
    ingest(params, "fallmud", root=root, corpus=corpus)
    assert (
        capsys.readouterr().out
        == f"{corpus}/fallmud/0000: 8 inputs, 8 accepted (8 images), 0 refused\n"
    )
    rows = manifest.read_manifest(corpus)
    assert rows[["height", "width"]].drop_duplicates().values.tolist() == [[64, 48]]
    about = read_json(corpus / "fallmud/0000/batch.json")
    assert (about["num_inputs"], about["accepted"], about["refused"]) == (8, 8, 0)
    assert "DL_Track" in about["licence"]
    assert "AW-Net" in about["citation"]


def test_two_runs_are_the_same_bytes_and_a_second_batch_is_its_own(
    params: Params, root: Path, tmp_path: Path
) -> None:
    for corpus in (tmp_path / "one", tmp_path / "two"):
        ingest(params, "fallmud", root=root, corpus=corpus)
    assert tree_hash(tmp_path / "one") == tree_hash(tmp_path / "two")
    # All inputs were accepted before, so the second batch holds refusals only.
    params.data.max_refused = 1
    ingest(params, "fallmud", root=root, corpus=tmp_path / "one", batch="0001")
    assert (
        read_json(tmp_path / "one/fallmud/0001/batch.json")["refused"] == 8
    )  # all were accepted before
    with pytest.raises(ValueError, match="0001 exists: a batch is written once"):
        ingest(params, "fallmud", root=root, corpus=tmp_path / "one", batch="0001")


def test_parts_together_are_the_whole(params: Params, root: Path, tmp_path: Path) -> None:
    ingest(params, "fallmud", root=root, corpus=tmp_path / "one")
    for number in range(1, 4):
        ingest(
            params,
            "fallmud",
            root=root,
            corpus=tmp_path / "three",
            batch=f"{number}",
            part=f"{number}/3",
        )
    given = [
        read_json(tmp_path / f"three/fallmud/{number}/batch.json")["num_inputs"]
        for number in range(1, 4)
    ]
    assert given == [2, 3, 3]
    columns = ["id", "pixel_sha256"]
    whole, parts = (manifest.read_manifest(tmp_path / name)[columns] for name in ("one", "three"))
    assert whole.to_numpy().tolist() == parts.to_numpy().tolist()


def test_a_batch_that_is_there_is_kept_on_demand(
    params: Params, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pod is restarted after it had ended, or while the export was still being copied."""
    corpus = tmp_path / "data"
    ingest(params, "fallmud", root=root, corpus=corpus, existing="keep")
    before = tree_hash(corpus)
    ingest(params, "fallmud", root=root, corpus=corpus, existing="keep")
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"{corpus}/fallmud/0000: exists already, with 8 inputs"
    )
    (root / "NeilCronin/images/8.tif").write_bytes(b"late")
    with pytest.raises(ValueError, match="0000 was made of 8 inputs, and there are 9 now"):
        ingest(params, "fallmud", root=root, corpus=corpus, existing="keep")
    assert tree_hash(corpus) == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"source": "bussi"},
            ValueError,
            "source 'bussi' has no reader; choose one of: bus-bra, .*fallmud",
        ),
        ({"part": "0/3"}, ValueError, "part '0/3' is not k/n"),
        ({"part": "4/3"}, ValueError, "part '4/3' is not k/n"),
        ({"existing": "replace"}, ValueError, "existing is 'replace'"),
        ({"batch": "../other"}, ValueError, "'../other' cannot name a folder"),
        ({"batch": ".hidden"}, ValueError, "'.hidden' cannot name a folder"),
        (
            {"site": "north"},
            ValueError,
            r"source 'fallmud' takes no --site \(given: 'north'\); its options are: none",
        ),
        (
            {"source": "dicom-folder", "mask_name": "cyst"},
            ValueError,
            "takes no --mask-name .*its options are: --site",
        ),
        ({"name": "bus-bra"}, ValueError, "--name bus-bra is the name of another reader"),
    ],
)
def test_wrong_arguments(
    params: Params,
    root: Path,
    tmp_path: Path,
    arguments: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    given = {"source": "fallmud", **arguments}
    with pytest.raises(error, match=message):
        ingest(params, given.pop("source"), root=root, corpus=tmp_path / "data", **given)
    assert not (tmp_path / "data").exists()


def test_every_option_of_a_source_is_an_option_of_the_command() -> None:
    options = {field.name for field in fields(Options)}
    arguments = {argument.name for argument in read_command("arl.stages.ingest").arguments}
    assert options <= arguments
    used = {option for name in readers.names() for option in readers.find_source(name).options}
    assert used == options


def test_a_set_of_ones_own_has_its_name_and_the_batch_says_who_read_it(
    params: Params, root: Path, tmp_path: Path
) -> None:
    ingest(params, "fallmud", root=root, corpus=tmp_path / "data", name="our-muscle")
    about = read_json(tmp_path / "data/our-muscle/0000/batch.json")
    assert (about["source"], about["reader"], about["options"]) == ("our-muscle", "fallmud", {})
    assert manifest.read_manifest(tmp_path / "data")["source"].unique().tolist() == ["our-muscle"]


def test_the_rule_of_thinning_is_that_of_the_source(
    params: Params, root: Path, tmp_path: Path
) -> None:
    """FALLMUD has stills, which no rule thins; the batch says which rule it was."""
    params.data.thinning = {"default": Thinning(3, 0, 0), "muscle": Thinning(7, 2, 5)}
    for name, every in ((None, 3), ("muscle", 7)):
        ingest(params, "fallmud", root=root, corpus=tmp_path / "data", name=name)
        about = read_json(tmp_path / "data" / (name or "fallmud") / "0000/batch.json")
        assert (about["thinning"]["every"], about["images"], about["thinned"]) == (every, 8, 0)


def test_a_missing_root_leaves_nothing(params: Params, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither"):
        ingest(params, "fallmud", root=tmp_path / "absent", corpus=tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", readers.names())
def test_every_source_is_described(name: str) -> None:
    source = readers.find_source(name)
    assert source.name == name
    empty = [field.name for field in fields(source) if getattr(source, field.name) == ""]
    assert empty in ([], ["citation"])


def test_a_batch_that_loses_too_much_is_not_written(
    params: Params, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (root / "NeilCronin/images").iterdir():
        file.write_bytes(b"II*\x00")
    corpus = tmp_path / "data"
    params.data.max_refused = 0.2
    with pytest.raises(TooManyRefusedError, match=r"data.max_refused allows 20%"):
        ingest(params, "fallmud", root=root, corpus=corpus)
    assert "is not a readable picture" in capsys.readouterr().out
    assert not (corpus / "fallmud/0000").exists()
    # The name is free.
    params.data.max_refused = 1
    ingest(params, "fallmud", root=root, corpus=corpus)
    assert BatchSummary.read(corpus / "fallmud/0000").refused > 2


def test_refused_inputs_are_read_again_into_a_batch_of_their_own(
    params: Params, root: Path, tmp_path: Path
) -> None:
    """The first try loses two files, the second mends one, the third the other."""
    corpus, images = tmp_path / "data", root / "NeilCronin/images"
    whole = {number: (images / f"{number}.tif").read_bytes() for number in (2, 5)}
    for number in whole:
        (images / f"{number}.tif").write_bytes(b"torn")
    ingest(params, "fallmud", root=root, corpus=corpus)
    params.data.max_refused = 1
    (images / "2.tif").write_bytes(whole[2])
    ingest(params, "fallmud", root=root, corpus=corpus, retry_refused=True)
    (images / "5.tif").write_bytes(whole[5])
    ingest(params, "fallmud", root=root, corpus=corpus, retry_refused=True)
    counts = {
        batch.name: (summary.num_inputs, summary.accepted)
        for batch in sorted(corpus.glob("fallmud/*"))
        if (summary := BatchSummary.read(batch))
    }
    assert counts == {"0000": (8, 6), "0000-retry-1": (2, 1), "0000-retry-2": (1, 1)}
    ingest(params, "fallmud", root=root, corpus=tmp_path / "whole")
    rows, expected = (
        manifest.read_manifest(folder)[["id", "pixel_sha256"]].sort_values("id")
        for folder in (corpus, tmp_path / "whole")
    )
    assert rows.to_numpy().tolist() == expected.to_numpy().tolist()
    with pytest.raises(ValueError, match="refused none of the 8 inputs"):
        ingest(params, "fallmud", root=root, corpus=corpus, retry_refused=True)


_COMMAND = "import sys; from arl.cli import main; sys.exit(main(sys.argv[1:]))"


def command(root: Path, corpus: Path, *words: str) -> list[str]:
    files = ["--root", str(root), "--corpus", str(corpus)]
    return [sys.executable, "-c", _COMMAND, "ingest", "fallmud", *files, *words]


def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk; its error takes the same path."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
    words = command(root, tmp_path / "data", "data.workers=0")
    words[2] = limit + _COMMAND
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 75
    assert "Traceback" not in done.stderr
    assert "arl ingest: " in done.stderr.splitlines()[-1]
    assert not [path for path in tmp_path.joinpath("data").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_killed_at_any_time_and_run_again_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    subprocess.run(command(root, whole), check=True, capture_output=True, cwd=ROOT)
    torn = tmp_path / "torn"
    for delay in np.linspace(0.5, 4, 8):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command(root, torn), cwd=ROOT, **quiet)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if (torn / "fallmud/0000").exists():
            break
    else:
        subprocess.run(command(root, torn), check=True, capture_output=True, cwd=ROOT)
    assert tree_hash(torn) == tree_hash(whole)
