"""From a PACS into an inbox: studies.StudyFolders, and real services of Debian (Orthanc, dcmtk)."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from arl.commands.listen import listen
from arl.ingest.inbox import list_batches
from arl.ingest.network.dicomweb import Fetcher, Query
from arl.ingest.network.store_scp import StoreScp
from arl.ingest.network.studies import StudyFolders

KEY = b"a secret of sixteen bytes or more"
ORTHANC, STORESCU = shutil.which("Orthanc"), "/usr/bin/storescu"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scan(folder: Path, study: str, number: int, modality: str = "US") -> Path:
    """A small ultrasound image file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    dataset.SOPInstanceUID = f"{study}.1.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
    dataset.PatientID, dataset.PatientName = f"MRN{study[-3:]}", "Nightingale^Florence"
    dataset.StudyDate, dataset.Modality = "20260301", modality
    dataset.Rows = dataset.Columns = 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = (
        np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8).tobytes()
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{study}-{number}.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file


def test_a_study_becomes_a_batch_when_it_has_settled(tmp_path: Path) -> None:
    studies = StudyFolders(tmp_path, "north", KEY)
    for number in range(3):
        studies.store("1.2.3", f"1.2.3.{number}", b"x" * number)
    studies.store("1.2.3", "1.2.3.0", b"again")
    now = time.time()
    assert studies.release_settled(60, now) == []
    assert list_batches(str(tmp_path), 0, now) == []
    (batch,) = studies.release_settled(60, now + 61)
    (listed,) = list_batches(str(tmp_path), 0, now)
    assert (listed.name, listed.num_files) == (f"north/{batch.name}", 3)
    assert listed.incomplete_reason == listed.problem == ""
    assert batch.name == f"{studies.alias('1.2.3')}-1"
    assert all(file.stat().st_mode & 0o077 == 0 for file in batch.iterdir())
    # A late instance is the next batch of the study.
    studies.store("1.2.3", "1.2.3.9", b"late")
    (late,) = studies.release_settled(0)
    assert late.name == f"{studies.alias('1.2.3')}-2"


def test_a_killed_release_is_repaired(tmp_path: Path) -> None:
    studies = StudyFolders(tmp_path, "north", KEY)
    studies.store("1.2.3", "1.2.3.0", b"x")
    (batch,) = studies.release_settled(0)
    batch.with_name(batch.name + ".complete").unlink()
    assert list_batches(str(tmp_path), 0, time.time())[0].incomplete_reason
    StudyFolders(tmp_path, "north", KEY).repair()
    assert list_batches(str(tmp_path), 0, time.time())[0].incomplete_reason == ""


def test_queries_need_https_and_a_date() -> None:
    with pytest.raises(ValueError, match="needs https"):
        Query("http://pacs.example/dicom-web")
    with pytest.raises(ValueError, match="2026"):
        Query("https://pacs.example/dicom-web", since="2026")


@pytest.mark.slow
@pytest.mark.skipif(not Path(STORESCU).exists(), reason="needs Debian's dcmtk")
def test_storescu_sends_and_another_title_is_rejected(tmp_path: Path) -> None:
    files = [str(scan(tmp_path / "out", f"1.2.77.{k % 4}", k)) for k in range(20)]
    service = StoreScp(StudyFolders(tmp_path / "inbox", "north", KEY), "ARL", ["SCANNER1"], None)
    port = free_port()
    server = service.start("127.0.0.1", port)
    try:
        words = [STORESCU, "-aec", "ARL", "127.0.0.1", str(port), *files]
        refused = subprocess.run([*words, "-aet", "STRANGER"], capture_output=True, check=False)
        assert refused.returncode != 0
        assert service.num_stored == 0
        subprocess.run([*words, "-aet", "SCANNER1"], check=True, capture_output=True)
    finally:
        server.shutdown()
    assert service.num_stored == 20
    batches = service.release_settled(0)
    assert sorted(sum(1 for _ in batch.iterdir()) for batch in batches) == [5, 5, 5, 5]
    stored = {dcmread(file).SOPInstanceUID for batch in batches for file in batch.iterdir()}
    assert stored == {dcmread(file).SOPInstanceUID for file in files}
    names = "\n".join(str(path) for path in (tmp_path / "inbox").rglob("*"))
    assert "1.2.77" not in names
    assert "MRN" not in names


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[str]:
    """Orthanc with its DICOMweb plugin on free ports; the address of its HTTP service."""
    http, dicom = free_port(), free_port()
    config = tmp_path / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "storage"),
                "IndexDirectory": str(tmp_path / "storage"),
                "HttpPort": http,
                "DicomPort": dicom,
                "Plugins": [str(PLUGIN)],
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            }
        )
    )
    assert ORTHANC is not None
    process = subprocess.Popen(
        [ORTHANC, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{http}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/system", timeout=1).read()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait()


def upload(address: str, file: Path) -> None:
    request = urllib.request.Request(f"{address}/instances", file.read_bytes(), method="POST")
    urllib.request.urlopen(request, timeout=10).read()


@pytest.mark.slow
@pytest.mark.skipif(ORTHANC is None or not PLUGIN.exists(), reason="needs Debian's orthanc")
def test_new_studies_of_orthanc_are_fetched_page_by_page_and_once(
    orthanc: str, tmp_path: Path
) -> None:
    for k in range(130):
        upload(orthanc, scan(tmp_path / "out", f"1.2.88.{k}", k))
    upload(orthanc, scan(tmp_path / "out", "1.2.99.1", 500, modality="CT"))
    query = Query(f"{orthanc}/dicom-web", since="2026-01-01")
    inbox = tmp_path / "inbox"
    batches = Fetcher(query, inbox, "north", KEY).poll()
    assert len(batches) == 130  # more than one page of studies, and no CT
    assert all(not b.incomplete_reason for b in list_batches(str(inbox), 0, time.time()))
    fetched = {dcmread(file).SOPInstanceUID for batch in batches for file in batch.iterdir()}
    assert fetched == {f"1.2.88.{k}.1.{k}" for k in range(130)}
    # Another process finds nothing new; a late instance of a study is fetched alone.
    assert Fetcher(query, inbox, "north", KEY).poll() == []
    upload(orthanc, scan(tmp_path / "out", "1.2.88.5", 900))
    (late,) = Fetcher(query, inbox, "north", KEY).poll()
    assert [dcmread(file).SOPInstanceUID for file in late.iterdir()] == ["1.2.88.5.1.900"]
    assert Fetcher(Query(f"{orthanc}/dicom-web", since="2026-06-01"), inbox, "n", KEY).poll() == []


@pytest.mark.slow
@pytest.mark.skipif(ORTHANC is None or not PLUGIN.exists(), reason="needs Debian's orthanc")
def test_an_interrupted_fetch_resumes_and_errors_name_no_study(
    orthanc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = generate_uid()[:50].rstrip(".")
    for k in range(4):
        upload(orthanc, scan(tmp_path / "out", study, k))
    query = Query(f"{orthanc}/dicom-web")
    first = Fetcher(query, tmp_path / "inbox", "north", KEY)
    # An earlier process was killed after it had fetched one instance.
    first._studies.store(study, f"{study}.1.0", (tmp_path / f"out/{study}-0.dcm").read_bytes())
    (batch,) = Fetcher(query, tmp_path / "inbox", "north", KEY).poll()
    assert sum(1 for _ in batch.iterdir()) == 4
    closed = Query(f"http://127.0.0.1:{free_port()}/dicom-web")
    with pytest.raises(OSError, match=r"DICOMweb at 127\.0\.0\.1") as error:
        Fetcher(closed, tmp_path / "inbox", "north", KEY).poll()
    assert "studies" not in str(error.value)


def certificates(folder: Path) -> Path:
    """An authority, and certificates of a server and a client that it has signed."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    days = ("-days", "1")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-subj", "/CN=authority", *days)  # fmt: skip
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.csr", "-subj", "/CN=localhost")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", *days)  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path(STORESCU).exists(), reason="needs Debian's dcmtk")
def test_listen_demands_a_client_certificate_and_writes_a_batch(tmp_path: Path) -> None:
    keys, port = certificates(tmp_path / "keys"), free_port()
    program = "import sys; from arl.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [
        *("listen", str(tmp_path / "inbox"), "--site", "north", "--allow", "SCANNER1"),
        *("--port", str(port), "--settle-seconds", "1"),
        *("--tls-certificate", str(keys / "server.pem"), "--tls-key", str(keys / "server.key")),
        *("--tls-client-authority", str(keys / "ca.pem")),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ARL_HASH_KEY": secrets.token_hex(32)},
    )
    assert process.stdout is not None
    try:
        assert "listens on 127.0.0.1" in process.stdout.readline()
        files = [str(scan(tmp_path / "out", "1.2.66", k)) for k in range(3)]
        send = [STORESCU, "-aet", "SCANNER1", "-aec", "ARL"]
        target = ["127.0.0.1", str(port), *files]
        plain = subprocess.run([*send, *target], capture_output=True, check=False, timeout=60)
        assert plain.returncode != 0
        stranger = [*send, "+tla", "-ic", *target]
        refused = subprocess.run(stranger, capture_output=True, check=False, timeout=60)
        assert refused.returncode != 0
        tls = ["+tls", str(keys / "client.key"), str(keys / "client.pem"), "+cf",
               str(keys / "ca.pem")]  # fmt: skip
        subprocess.run([*send, *tls, *target], check=True, capture_output=True, timeout=60)
        assert "3 instances" in process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        process.stdout.close()
    (batch,) = list_batches(str(tmp_path / "inbox"), 0, time.time())
    assert (batch.num_files, batch.incomplete_reason) == (3, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "without TLS"),
        ({"tls_key": Path("x")}, "or none"),
        ({"site": "North Clinic"}, "site 'North Clinic'"),
        ({"allow": ["A TITLE THAT IS TOO LONG"]}, "AE title"),
    ],
)
def test_wrong_options_of_listen(tmp_path: Path, options: dict[str, object], message: str) -> None:
    arguments = {"site": "north", "allow": ["SCANNER1"], **options}
    with pytest.raises(ValueError, match=message):
        listen(tmp_path, **arguments)  # type: ignore[arg-type]
