"""The real ultrasound that the package pydicom-data ships for testing decoders: six files, 1"""

from pathlib import Path

from pydicom.data import get_testdata_file

from arl.corpus.record import Input
from arl.ingest.dicom.burnt_in_text import KEEP
from arl.ingest.dicom.deidentify import PUBLIC_KEY
from arl.ingest.dicom.rules import AnatomyRules
from arl.ingest.readers.dicom_folder import Reading, file_input
from arl.ingest.source import Source

# one of each picture; the package also holds them in other compressions
FILES = (
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "OBXXXX1A_rle.dcm",
    "US1_J2KR.dcm",
    "color-pl.dcm",
    "color3d_jpeg_baseline.dcm",
    "gdcm-US-ALOKA-16.dcm",
)


def installed() -> Path:
    """The folder in which pip has put the files.

    Raises:
        FileNotFoundError: pydicom-data is not installed.
    """
    result = get_testdata_file(FILES[0], download=False)
    if result is None:
        raise FileNotFoundError(f"{FILES[0]} is not installed: the package pydicom-data holds it")
    return Path(str(result)).parent


def read(root: Path, rules: AnatomyRules) -> list[Input]:
    """One input for each file of `FILES`.

    Raises:
        FileNotFoundError: a file is missing.
    """
    missing = [name for name in FILES if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)} of pydicom-data")
    reading = Reading("pydicom-data", PUBLIC_KEY, rules, burnt_in_text=KEEP, stills_by_content=True)
    return [file_input(root / name, Path(name), reading) for name in FILES]


SOURCE = Source(
    name="pydicom-data",
    title=(
        "The real ultrasound that the package pydicom-data ships for testing decoders: six "
        "files, 126 images."
    ),
    read=lambda root, options, dicom: read(root, AnatomyRules.from_settings(dicom)),
    published=False,
    reads_dicom=True,
    licence="MIT (pydicom-data)",
    citation=("pydicom contributors, pydicom-data 1.0.0, https://github.com/pydicom/pydicom-data"),
    obtain="Installed with arl (the package pydicom-data); `arl sample` reads it",
    layout=(
        "<root>/<name>.dcm, the files of `FILES`; others are not inputs. `installed()` is "
        "where pip has put them."
    ),
    keys="As `dicom_folder`, hashed with a public key: the files are public.",
    coding=(
        "An apical four-chamber cine (120 frames), an adult echo still, two pelvic panels "
        "of one screen, a lymph node under power Doppler, a transoesophageal echo under "
        "colour Doppler, an obstetric probe in air. No labels."
    ),
    patient="As `dicom_folder`.",
    split="No official split.",
    refuses=(
        "Nothing of the official files. Stills without region tags are cropped by their "
        "content, and burnt-in text is kept: no person is named."
    ),
)
