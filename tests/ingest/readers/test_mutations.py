"""Thousands of damaged inputs: each ends as accepted images or as a refusal.

The files are those of the readers' own miniature trees and of pydicom-data; a mutation flips, cuts,
repeats, swaps or overwrites bytes of one file, or changes a cell or a tag's worth of text. Every
mutant is read in a child process with a time limit, as ingest does it.
"""

import os
import runpy
import shutil
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from arl.corpus import manifest
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.record import Input, Record, refusal
from arl.corpus.shard_reader import read_images
from arl.corpus.shard_writer import BatchWriter
from arl.ingest.batches import write_inputs
from arl.ingest.dicom.burnt_in_text import KEEP
from arl.ingest.dicom.deidentify import PUBLIC_KEY
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.readers import dicom_folder, find_source
from arl.ingest.readers.dicom_folder import Reading
from arl.ingest.source import Options
from arl.settings import Dicom

SECONDS = 20  # for one input
# format -> (module of tests, its fixture, reader, suffixes of the files that are damaged, mutants)
TREES = {
    "PNG": ("test_bus_bra", "root", "bus-bra", (".png",), 700),
    "TIFF": ("test_fallmud", "root", "fallmud", (".tif",), 600),
    "AVI": ("test_echonet_dynamic", "root", "echonet-dynamic", (".avi",), 500),
    # each read of a MAT file starts a process of its own
    "MAT": ("test_fatty_liver", "root", "fatty-liver", (".mat",), 100),
    "HDF5": ("test_thyroid_cine", "root", "thyroid-cine", (".hdf5",), 400),
    "CSV": ("test_bus_bra", "root", "bus-bra", (".csv",), 500),
    "XML": ("test_ddti", "original", "ddti", (".xml",), 400),
    "NIfTI": ("test_camus", "root", "camus", (".gz",), 400),
}
DICOM = 1800
READING = Reading("mutants", PUBLIC_KEY, AnatomyRules([], [], {}), KEEP, stills_by_content=True)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three damages; half of them near the head, where the structure is."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        reach = len(data) if rng.random() < 0.5 else min(len(data), 1024)
        at, length = int(rng.integers(reach)), int(rng.integers(1, 33))
        kind = rng.integers(9)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 9))
        elif kind == 5:
            data[at : at + 4] = bytes.fromhex(
                str(rng.choice(["00000000", "ffffffff", "7fffffff", "80000000"]))
            )
        elif kind == 6:
            data[at : at + length] = bytes(length)
        elif kind == 7:
            data[at : at + length], data[:length] = data[:length], data[at : at + length]
        else:
            _replace_word(data, rng)
    return bytes(data)


def _replace_word(data: bytearray, rng: np.random.Generator) -> None:
    """A word or number of a text, or what looks like one, becomes another."""
    words = bytes(data[:65536]).split(b",")
    odd = [
        b"",
        b"-1",
        b"1e999",
        b"NaN",
        b"99999999999999999999",
        b"\xff\xfe",
        b'"',
        b"\n",
        b"<",
        b"../x",
        b"\0",
    ]
    words[int(rng.integers(len(words)))] = odd[int(rng.integers(len(odd)))]
    data[:65536] = b",".join(words)


NO_DICOM = Dicom("quarantine", "refuse", [], [], {})


def given(name: str, root: Path, number: int) -> list[Input]:
    """The inputs of one mutant, listed in this process as `arl ingest` does it.

    What a reader says of a layout is a refusal of the tree; an error that no reader has worded is
    none.
    """
    try:
        inputs = find_source(name).read(root, Options(), NO_DICOM)
    except (ValueError, OSError) as error:
        if "arl" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts:
            raise
        return [refusal(f"{number}", "the tree is refused as a whole")]
    return [Input(f"{number}/{input.name}", partial(_numbered, input, number)) for input in inputs]


def _numbered(input: Input, number: int) -> Iterator[Record]:
    """The records of an input, with keys that no other mutant has."""
    for record in input.records():
        yield replace(
            record, entry=replace(record.entry, key=f"{number}/{record.entry.key}", splits={})
        )


def account(corpus: Path, inputs: list[Input], source: str, mutants: int) -> Counter[str]:
    """Ingest the mutants, read the batch back, and count their ends."""
    with BatchWriter(
        corpus, source, "0000", 64, origin=BatchOrigin(licence="", citation="")
    ) as writer:
        write_inputs(inputs, writer, 1, seconds=SECONDS)
    rows, refused = manifest.read_manifest(corpus), manifest.read_quarantine(corpus)
    assert len(read_images(corpus, rows)) == len(rows)
    assert [path for path in corpus.rglob("*") if "partial" in path.name] == []
    ends = Counter(
        {"inputs": len(inputs), "accepted": len(inputs) - len(refused), "refused": len(refused)}
    )
    ends["trees refused as a whole"] = int(
        (refused["reason"] == "the tree is refused as a whole").sum()
    )
    ends["read, but seen before"] = int(
        (refused["reason"] == "an image with this id was accepted before").sum()
    )
    for reason in refused["reason"]:
        ends["decoder died"] += reason.startswith("reading it ended the process")
        ends["too slow"] += reason.startswith("reading it took more than")
        ends["unforeseen"] += reason.startswith("reading it failed unforeseen")
    unforeseen = Counter(
        refused["reason"][refused["reason"].str.contains("unforeseen|took more|ended the process")]
    )
    print(f"\n{source}: {mutants} mutants, {dict(ends)} {dict(unforeseen)}")
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("form", TREES)
def test_damaged_trees(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    module, fixture, name, suffixes, count = TREES[form]
    root = _made(module, fixture, tmp_path / "tree", request)
    files = sorted(path for path in root.rglob("*") if path.suffix in suffixes)
    inputs = []
    for number in range(count):
        rng = np.random.default_rng((sum(form.encode()), number))
        copy = tmp_path / "mutants" / f"{number:04d}"
        shutil.copytree(root, copy, copy_function=os.link)
        victim = files[int(rng.integers(len(files)))]
        place = copy / victim.relative_to(root)
        place.unlink()
        place.write_bytes(mutated(victim.read_bytes(), rng))
        inputs += given(name, copy, number)
    ends = account(tmp_path / "data", inputs, name, count)
    assert ends["unforeseen"] == ends["too slow"] == 0
    assert min(ends["accepted"], ends["refused"]) > 0


def _made(module: str, fixture: str, folder: Path, request: pytest.FixtureRequest) -> Path:
    """The miniature tree of a reader's own tests."""
    made = runpy.run_path(str(Path(__file__).with_name(f"{module}.py")))[fixture]
    build: Callable[..., Path] = made._get_wrapped_function()
    wanted = build.__code__.co_varnames[1 : build.__code__.co_argcount]
    folder.mkdir()
    root = build(folder, *(request.getfixturevalue(name) for name in wanted))
    return root.parent if root.is_file() else root


def _seeds() -> list[bytes]:
    """Small real files: planar, palette, RLE, JPEG 2000, big endian, lossless JPEG."""
    from io import BytesIO

    seeds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = dcmread(get_testdata_file("color-px.dcm", download=False))
        for syntax in (None, RLELossless, JPEG2000Lossless, ExplicitVRBigEndian):
            dataset: FileDataset = dcmread(get_testdata_file("color-px.dcm", download=False))
            if syntax in (RLELossless, JPEG2000Lossless):
                dataset.compress(syntax, generate_instance_uid=False)
            stream = BytesIO()
            if syntax == ExplicitVRBigEndian:
                dataset = dcmread(get_testdata_file("ExplVR_BigEnd.dcm", download=False))
            dataset.save_as(stream, enforce_file_format=False)
            seeds.append(stream.getvalue())
        for name in ("gdcm-US-ALOKA-16.dcm", "OBXXXX1A_rle.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"):
            seeds.append(Path(get_testdata_file(name, download=False)).read_bytes())
        assert small.Rows
    return seeds


@pytest.mark.slow
def test_damaged_dicom(tmp_path: Path) -> None:
    seeds = _seeds()
    drop = tmp_path / "drop"
    drop.mkdir()
    for number in range(DICOM):
        rng = np.random.default_rng((7, number))
        # the small ones most of the time: the large take ten times as long
        seed = (
            seeds[int(rng.integers(4))]
            if rng.random() < 0.9
            else seeds[int(rng.integers(4, len(seeds)))]
        )
        (drop / f"{number:04d}").write_bytes(mutated(seed, rng))
    ends = account(tmp_path / "data", dicom_folder.inputs(drop, READING), "dicom-folder", DICOM)
    assert ends["unforeseen"] == ends["too slow"] == 0
    assert min(ends["accepted"], ends["refused"]) > 0
