"""A drop of real ultrasound files with an invented identifier in every place that can hold one.

Each place has an identifier of its own, so an identifier in an output names the place that leaks.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from pydicom import DataElement, dcmread
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian

from arl.ingest.phi_audit.burnt_in import Ink
from arl.ingest.phi_audit.confidentiality import PROFILE
from arl.ingest.phi_audit.scenes import BURNT_IN, SCENES, Scene

# Files of pydicom-data that keep their own pixels.
_STILL, _PANELS = "JPGLosslessP14SV1_1s_1f_8b.dcm", "gdcm-US-ALOKA-16.dcm"
_CLIP, _OTHER_MODALITY = "examples_ybr_color.dcm", "MR_small.dcm"
_NAME = "Zqvordahl"  # of files and folders
_LONG = ("UC", "UT", "LT", "ST", "LO", "PN", "SH", "AE", "CS")
# Groups of network messages, which files do not hold, and of the file's head, which
# `plant_everywhere` fills by name.
_COMMAND, _META = 0x0000, 0x0002
_LAST = (0xFFFA, 0xFFFC)  # groups that stand behind the pixels
_ITEM = 0x00080104  # Code Meaning, in the items of sequences


class Planter:
    """Makes identifiers, and remembers each with its place."""

    def __init__(self) -> None:
        self.locations: dict[str, str] = {}  # identifier -> place
        # Places whose values are too short to be told from other bytes.
        self.unsearchable: list[str] = []
        self.inks: dict[str, Ink] = {}  # name of a drawing -> its ink
        self._count = 0

    def text(self, location: str) -> str:
        """A name of twelve characters."""
        self._count += 1
        return self._kept(f"ZQ{self._count:04d}VORDAH", location)

    def item(self, location: str) -> Dataset:
        """An item of a sequence with a name, another sequence and a name in that."""
        # Profiles that stop at the first level of a sequence leak the second name.
        item, inner = Dataset(), Dataset()
        item.add_new(_ITEM, "LO", self.text(f"{location} > item"))
        inner.add_new(0x00100010, "PN", self.text(f"{location} > item > item"))
        item.add_new(0x00081140, "SQ", [inner])
        return item

    def value(self, tag: int, vr: str) -> object:
        """A value of an attribute that fits its representation."""
        location = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        if vr in _LONG:
            return self.text(location)
        if vr == "SQ":
            return [self.item(location)]
        if vr in ("OB", "UN", "OW"):
            # An even length, and long enough to stand out among pixels.
            return self.text(location).encode() * 2
        self._count += 1
        number = self._count
        # No file of the drop is older than a century, so a date of the 19th is a planted one.
        day = f"18{number % 90 + 10}{number % 12 + 1:02d}{number % 28 + 1:02d}"
        made = {
            "UI": f"1.2.826.0.1.3680043.8.{7730000 + number}",
            "DA": day,
            "TM": f"0{number % 10}{number % 60:02d}{number % 59:02d}.{730000 + number}",
            "DT": f"{day}0719.{730000 + number}",
            "DS": f"{7730000 + number}.25",
            "IS": str(773000000 + number),
            "UR": f"http://zq{number}vordahl.example",
        }
        if vr not in made:
            self.unsearchable.append(location)
            return {"US": number, "AS": f"{number % 99 + 1:03d}Y"}[vr]
        return self._kept(made[vr], location)

    def _kept(self, value: str, location: str) -> str:
        self.locations[value] = location
        return value


def plant(target: Path, planter: Planter) -> int:
    """Write the drop below `target`, and return how many files it has.

    Raises:
        FileNotFoundError: the package pydicom-data, whose files are planted with, is not installed.
    """
    planter.locations |= dict.fromkeys(BURNT_IN, "burnt into the pixels") | {
        _NAME: "file and folder names"
    }
    folder = target / f"{_NAME}^Anna 18480712"
    folder.mkdir(parents=True)
    files = (_STILL, _PANELS, _CLIP, _OTHER_MODALITY)
    writers: list[Callable[[Path, Planter], None]] = [
        *(partial(write_headers, name) for name in files),
        *(partial(write_scene, scene) for scene in SCENES),
        write_torn,
        write_odd,
    ]
    with warnings.catch_warnings():
        # pydicom warns of the values that do not fit, which is what the audit plants
        warnings.simplefilter("ignore")
        for number, write in enumerate(writers):
            write(folder / f"{_NAME}_{number}.dcm", planter)
    note = folder / f"{_NAME}_{len(writers)}.txt"
    note.write_text(f"Report of {planter.text('a text file')}\n", encoding="utf-8")
    return len(list(folder.iterdir()))


def real_file(name: str) -> FileDataset:
    """A file of the package pydicom-data.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    # Without `download=False` pydicom would fetch the file from the network.
    path = get_testdata_file(name, download=False)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed: the package pydicom-data holds it")
    return dcmread(str(path))


def profile_tags() -> Iterator[tuple[int, str]]:
    """Every tag of the profile with its representation; LO for tags that pydicom does not know."""
    for row in PROFILE:
        # One group stands for all groups of curves, one for all overlays.
        tag = int(row.replace("XXXXXX", "002500").replace("XX", "02"), 16)
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "LO"
        yield tag, vr.split(" or ")[0]


def plant_everywhere(dataset: FileDataset, planter: Planter) -> None:
    """Plant identifiers in all attributes of the profile, private ones, meta data and preamble."""
    for tag, vr in profile_tags():
        if tag >> 16 not in (_COMMAND, _META, *_LAST):
            dataset[tag] = DataElement(tag, vr, planter.value(tag, vr))
    # Both describe the device, but hold free text at some sites.
    dataset.Manufacturer = planter.text("(0008,0070)")
    dataset.ManufacturerModelName = f"LOGIQ {planter.text('(0008,1090)')}"
    for group in (0x0009, 0x0029, 0x7FE1):
        block = dataset.private_block(group, planter.text("private creator"), create=True)
        block.add_new(0x01, "LO", planter.text("private text"))
        block.add_new(0x02, "SQ", [planter.item("private sequence")])
        block.add_new(0x03, "UN", planter.text("private bytes").encode() * 2)
    dataset.preamble = planter.text("preamble").encode().ljust(128, b"\0")
    meta = dataset.file_meta
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.SourceApplicationEntityTitle = planter.text("file meta")
    meta.ImplementationVersionName = planter.text("file meta")
    meta.PrivateInformationCreatorUID = planter.value(0x00020100, "UI")
    meta.PrivateInformation = planter.text("file meta").encode()
    # Ingest reads the anatomy from this free text, so it has to be a sentence with a name in it.
    dataset.StudyDescription = f"Echo of {planter.text('(0008,1030) in a sentence')}"


def write_planted(dataset: FileDataset, target: Path, planter: Planter) -> None:
    """Plant in all attributes, before and behind the pixels and behind the end, and write."""
    plant_everywhere(dataset, planter)
    for tag, vr in profile_tags():
        if tag >> 16 in _LAST:
            dataset[tag] = DataElement(tag, vr, planter.value(tag, vr))
    dataset.save_as(target, enforce_file_format=False)
    with target.open("ab") as stream:
        stream.write(planter.text("after the end of the data set").encode() * 3)


def write_headers(name: str, target: Path, planter: Planter) -> None:
    """A real file with its own pixels, and identifiers in its headers only."""
    write_planted(real_file(name), target, planter)


def write_scene(scene: Scene, target: Path, planter: Planter) -> None:
    """A real file with a scene drawn into its pixels."""
    dataset = real_file(scene.file)
    frames = np.stack([pixel_array(dataset, index=index) for index in range(scene.frames)])
    planter.inks |= scene.draw(frames)
    # Uncompressed, so that the drawing is in the file as it was made.
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    photometric = "RGB" if frames.ndim == 4 else "MONOCHROME2"
    pixels = frames if scene.frames > 1 else frames[0]
    dataset.set_pixel_data(pixels, photometric, 8, generate_instance_uid=False)
    write_planted(dataset, target, planter)


def write_torn(target: Path, planter: Planter) -> None:
    """A file that ends within its pixels."""
    write_headers(_PANELS, target, planter)
    target.write_bytes(target.read_bytes()[:60_000])


def write_odd(target: Path, planter: Planter) -> None:
    """Names where numbers and codes belong, so that decoders and parsers would quote them."""
    dataset = real_file("OBXXXX1A_rle.dcm")
    plant_everywhere(dataset, planter)
    dataset.SpecificCharacterSet = planter.text("(0008,0005)")
    # Number of Frames, Photometric Interpretation, Pixel Representation
    for tag in (0x00280008, 0x00280004, 0x00280103):
        dataset[tag] = DataElement(
            tag, "LO", planter.text(f"({tag >> 16:04X},{tag & 0xFFFF:04X}), of another kind")
        )
    dataset.PixelData = encapsulate([planter.text("pixels that are none").encode() * 9])
    dataset.save_as(target, enforce_file_format=False)
