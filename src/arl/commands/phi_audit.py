"""Audit the de-identification: plant identifiers, ingest the files, search all that is left."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from arl import console
from arl import params as parameters
from arl.files import write_json
from arl.params import Params

_INGEST = (sys.executable, "-m", "arl.cli", "ingest")


def phi_audit(params: Params, *, work: Path = Path("out/phi-audit")) -> None:
    """Audit the de-identification: plant identifiers in DICOM, ingest, and search for them.

    Identifiers are planted in every attribute of PS3.15 Table E.1-1, device names, private
    attributes, nested sequences, file meta information, the preamble, overlays and file names. In
    the pixels they stand in several scripts, as a QR code, on a card, in single frames, moving, and
    on slides. The search covers the corpus, all printed text and every file that ingest leaves. The
    command fails if it finds one.

    Args:
        work: Folder of the files, the corpus and audit.json.

    Raises:
        ValueError: an identifier was found again, or the ingest failed.

    Writes:
        work

    Examples:
        arl phi-audit
    """
    audit(params, work, _INGEST)


def audit(params: Params, work: Path, ingest: tuple[str, ...]) -> None:
    """`phi_audit` of another command than `arl ingest`, for its own test."""
    from arl.ingest.phi_audit.planting import Planter, plant
    from arl.ingest.phi_audit.scenes import BURNT_IN
    from arl.ingest.phi_audit.search import leaks

    shutil.rmtree(work, ignore_errors=True)
    planter = Planter()
    files = plant(work / "drop", planter)
    # A fresh key, which is itself searched for in what ingest leaves.
    key = secrets.token_hex(32)
    planter.locations[key] = "the key of the hashes"
    _run(params, work.resolve(), key, ingest)
    leaked = sorted(set(leaks(work / "left", planter.locations, BURNT_IN, planter.inks)))
    num_places = len(set(planter.locations.values()))
    result = {
        "files": files,
        "identifiers": len(planter.locations),
        "places": num_places,
        "not_searched": sorted(set(planter.unsearchable)),
        "bytes": sum(file.stat().st_size for file in (work / "left").rglob("*") if file.is_file()),
        "found": leaked,
    }
    write_json(work / "audit.json", result)
    if leaked:
        raise ValueError(
            f"{len(leaked)} identifiers were found in what ingest left; the first: {leaked[0]}"
        )
    text = (
        "{identifiers} identifiers planted in {places} places of {files} files; none found in "
        "{bytes} bytes"
    )
    console.info(text.format(**result))


def _run(params: Params, work: Path, key: str, ingest: tuple[str, ...]) -> None:
    """Ingest the drop in a folder of its own, which is also its home and temporary folder."""
    left = work / "left"
    (left / "tmp").mkdir(parents=True)
    text = yaml.safe_dump(parameters.to_literals(params), sort_keys=False)
    (left / "params.yaml").write_text(text, encoding="utf-8")
    words = [
        "dicom-folder",
        "--root",
        str(work / "drop"),
        "--corpus",
        "data",
        "--site",
        "audit",
        "data.max_refused=1.0",
    ]
    # HOME and TMPDIR point into the searched folder, so caches and temporary files count.
    environment = os.environ | {"ARL_HASH_KEY": key, "TMPDIR": str(left / "tmp"), "HOME": str(left)}
    # The file would win over the planted key.
    environment.pop("ARL_HASH_KEY_FILE", None)
    done = subprocess.run(
        [*ingest, *words], capture_output=True, cwd=left, env=environment, check=False
    )
    (left / "stdout").write_bytes(done.stdout)
    (left / "stderr").write_bytes(done.stderr)
    if done.returncode:
        raise ValueError(
            f"the ingest of {work / 'drop'} ended with {done.returncode}: see {left / 'stderr'}"
        )
