"""The audit finds nothing with the reader as it is, and finds a leak wherever one is planted."""

import hashlib
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.datadict import dictionary_VR

from arl import params as parameters
from arl.commands.phi_audit import audit, phi_audit
from arl.files import read_json
from arl.ingest.phi_audit.confidentiality import PROFILE
from arl.ingest.phi_audit.planting import Planter, plant
from arl.ingest.phi_audit.scenes import BURNT_IN
from arl.ingest.phi_audit.search import Search, is_similar, leaks
from arl.params import Params

ROOT = Path(__file__).parents[2]
# each puts an identifier where the reader could let one slip, and then runs the real command
LEAKS = {
    "device": "frames.device_name = lambda *_: 'made by Zqvordahl'",
    "a log": "import sys; print('reading Zqvordahl', file=sys.stderr)",
    "a temporary file": (
        "import tempfile; tempfile.NamedTemporaryFile(delete=False).write(b'Zqvordahl')"
    ),
    "a bare hash": f"frames.device_name = lambda *_: {hashlib.md5(b'Zqvordahl').hexdigest()!r}",
    "the pixels": "burnt_in_text.text_boxes = lambda *_: []",
}
MAIN = (
    "import sys; from arl.cli import main; from arl.ingest.dicom import burnt_in_text, frames; "
    "{leak}; main(sys.argv[1:])"
)


@pytest.fixture
def params() -> Params:
    return parameters.load(["data.workers=0"], ROOT / "params.yaml")


@pytest.mark.slow
def test_nothing_is_found(
    params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phi_audit(params, work=tmp_path / "audit")
    audit_record = read_json(tmp_path / "audit/audit.json")
    assert "none found" in capsys.readouterr().out
    assert audit_record["found"] == []
    assert audit_record["files"] == 17
    assert audit_record["places"] > len(PROFILE) - 20
    assert not [
        path for path in (tmp_path / "audit/left").iterdir() if path.name.startswith(".")
    ]  # nothing reports home


@pytest.mark.slow
@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found(params: Params, tmp_path: Path, leak: str) -> None:
    command = (sys.executable, "-c", MAIN.format(leak=LEAKS[leak]), "ingest")
    with pytest.raises(ValueError, match="identifiers were found in what ingest left"):
        audit(params, tmp_path / "audit", command)


def test_an_ingest_that_fails_is_no_clean_audit(params: Params, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ended with 3"):
        audit(params, tmp_path / "audit", (sys.executable, "-c", "raise SystemExit(3)"))


def test_every_attribute_of_the_profile_is_planted(tmp_path: Path) -> None:
    planter = Planter()
    assert plant(tmp_path, planter) == len(list(tmp_path.rglob("*.*")))
    places = " ".join({*planter.locations.values(), *planter.unsearchable})
    tags = [row.replace("XXXXXX", "002500").replace("XX", "02") for row in PROFILE]
    missing = [tag for tag in tags if f"({tag[:4]},{tag[4:]})" not in places]
    assert missing == [
        "00001000",
        "00001001",
        "00020003",
    ]  # of network messages; in the file's head, see below
    assert len(set(planter.unsearchable)) < 5
    content = b"".join(file.read_bytes() for file in tmp_path.rglob("*.dcm"))
    absent = planter.locations.keys() - Search(planter.locations).find(content)
    assert len(absent) < 0.1 * len(planter.locations)  # behind the torn end of a file, or drawn


def test_each_place_of_an_output_is_searched(tmp_path: Path) -> None:
    secret = "Zqvordahl 4711"
    (tmp_path / "plain").write_text(f"... {secret.upper()} ...")
    (tmp_path / "wide").write_bytes(b"\1" + secret.encode("utf-16-le"))
    (tmp_path / "hash").write_text(hashlib.sha256(secret.encode()).hexdigest())
    (tmp_path / f"{secret}.txt").write_text("")
    os.symlink("nowhere", tmp_path / "clean")
    table = pa.table({"cell": ["clean", secret]}).replace_schema_metadata({"note": "clean"})
    pq.write_table(table, tmp_path / "one.parquet", compression="zstd")
    found = list(leaks(tmp_path, {secret: "a test"}, ()))
    places = {sentence.split(" holds")[0] for sentence in found} - {
        "one.parquet"
    }  # some codecs leave it readable
    assert places == {
        f"the name {secret}.txt",
        "hash",
        "column cell of one.parquet",
        "plain",
        "wide",
    }
    assert list(leaks(tmp_path, {"Another name": "a test"}, ())) == []


def test_the_search_is_that_of_python() -> None:
    names = [f"identifier {number:05d}" for number in range(500)]
    search = Search(names)
    for offset in range(17):
        content = (
            b"x" * offset
            + b"IDENTIFIER 00123 identifier 0499"
            + b"y" * offset
            + b"identifier 00007"
        )
        assert search.find(content) == {"identifier 00123", "identifier 00007"}
    assert search.find(b"") == search.find(b"identif") == set()
    with pytest.raises(ValueError, match="too short"):
        Search(["seven"])


@pytest.mark.parametrize(
    ("text", "secret", "same"),
    [
        ("OKONKWO ADAEZE", BURNT_IN[0], True),
        ("0KONKW0", BURNT_IN[0], True),
        ("MRN 814O277", BURNT_IN[1], True),
        ("07.1938", BURNT_IN[2], True),
        ("MAMA DIR", BURNT_IN[0], False),
        ("3.3cm", BURNT_IN[2], False),
        ("OKO", BURNT_IN[0], False),
    ],
)
def test_what_a_reader_makes_of_a_name_is_known_again(text: str, secret: str, same: bool) -> None:
    assert is_similar(text, secret) is same


def test_values_fit_their_representations() -> None:
    planter = Planter()
    for row in PROFILE:
        if "X" not in row:
            try:
                vr = dictionary_VR(int(row, 16))
            except KeyError:
                continue
            assert planter.value(int(row, 16), vr) is not None
