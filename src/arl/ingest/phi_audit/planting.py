"""A drop of real ultrasound files with an invented identifier in every place that can hold one.

Each place has an identifier of its own, so an identifier in an output names the place that leaks.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from pydicom import DataElement, dcmread
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from arl.corpus.record import Pixels
from arl.ingest.phi_audit.burnt_in import Ink, code_ink, draw_ink, name_inks, text_ink
from arl.ingest.phi_audit.confidentiality import PROFILE

BURNT_IN = ("OKONKWO ADAEZE", "MRN 8140277", "14.07.1938")  # drawn over the scans
_NAME = "Zqvordahl"  # of files and folders
_LONG = ("UC", "UT", "LT", "ST", "LO", "PN", "SH", "AE", "CS")
_COMMAND, _META = (
    0x0000,
    0x0002,
)  # groups: of network messages, which files do not hold; of the file's head
_LAST = (0xFFFA, 0xFFFC)  # groups that stand behind the pixels
_ITEM = 0x00080104  # Code Meaning, in the items of sequences


class Planter:
    """Makes identifiers, and remembers each with its place."""

    def __init__(self) -> None:
        self.locations: dict[str, str] = {}  # identifier -> place
        self.unsearchable: list[
            str
        ] = []  # places whose values are too short to be told from other bytes
        self.inks: dict[str, Ink] = {}  # what is drawn -> its ink
        self._count = 0

    def text(self, location: str) -> str:
        """A name of twelve characters."""
        self._count += 1
        return self._kept(f"ZQ{self._count:04d}VORDAH", location)

    def value(self, tag: int, vr: str) -> object:
        """A value of an attribute that fits its representation."""
        location = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        if vr in _LONG:
            return self.text(location)
        if vr == "SQ":
            return [self._item(location)]
        if vr in ("OB", "UN", "OW"):
            return self.text(location).encode() * 2
        self._count += 1
        number = self._count
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

    def _item(self, location: str) -> Dataset:
        """An item with a name, another sequence and a name in that."""
        item, inner = Dataset(), Dataset()
        item.add_new(_ITEM, "LO", self.text(f"{location} > item"))
        inner.add_new(0x00100010, "PN", self.text(f"{location} > item > item"))
        item.add_new(0x00081140, "SQ", [inner])
        return item

    def _kept(self, value: str, location: str) -> str:
        self.locations[value] = location
        return value


def plant(folder_: Path, planter: Planter) -> int:
    """Write the drop, and return how many files it has.

    Raises:
        FileNotFoundError: the package pydicom-data, whose files are planted with, is not installed.
    """
    planter.locations |= dict.fromkeys(BURNT_IN, "burnt into the pixels") | {
        _NAME: "file and folder names"
    }
    folder = folder_ / f"{_NAME}^Anna 18480712"
    folder.mkdir(parents=True)
    writers: list[Callable[[Path, Planter], object]] = [
        _still,
        _panels,
        _clip,
        _named_still,
        _named_clip,
        _scripts,
        _code,
        _first_frame,
        _one_frame,
        _moving,
        _slides,
        _torn,
        _odd,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, write in enumerate([*writers, _other_modality, _note]):
            write(folder / f"{_NAME}_{number}.dcm", planter)
    return len(list(folder.iterdir()))


def _real(name: str) -> FileDataset:
    path = get_testdata_file(name, download=False)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed: the package pydicom-data holds it")
    return dcmread(str(path))


def _profile() -> Iterator[tuple[int, str]]:
    """Every tag of the profile with its representation; LO for tags that pydicom does not know."""
    for row in PROFILE:
        tag = int(row.replace("XXXXXX", "002500").replace("XX", "02"), 16)
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "LO"
        yield tag, vr.split(" or ")[0]


def _everywhere(dataset: FileDataset, planter: Planter) -> None:
    """Plant identifiers in all attributes of the profile, private ones, meta data and preamble."""
    for tag, vr in _profile():
        if tag >> 16 not in (_COMMAND, _META, *_LAST):
            dataset[tag] = DataElement(tag, vr, planter.value(tag, vr))
    # describe the device, but hold free text at some sites
    dataset.Manufacturer = planter.text("(0008,0070)")
    dataset.ManufacturerModelName = f"LOGIQ {planter.text('(0008,1090)')}"
    for group in (0x0009, 0x0029, 0x7FE1):
        block = dataset.private_block(group, planter.text("private creator"), create=True)
        block.add_new(0x01, "LO", planter.text("private text"))
        block.add_new(0x02, "SQ", [planter._item("private sequence")])
        block.add_new(0x03, "UN", planter.text("private bytes").encode() * 2)
    dataset.preamble = planter.text("preamble").encode().ljust(128, b"\0")
    meta = dataset.file_meta
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.SourceApplicationEntityTitle = planter.text("file meta")
    meta.ImplementationVersionName = planter.text("file meta")
    meta.PrivateInformationCreatorUID = planter.value(0x00020100, "UI")
    meta.PrivateInformation = planter.text("file meta").encode()
    # free text that the anatomy is read from, with a name in it
    dataset.StudyDescription = f"Echo of {planter.text('(0008,1030) in a sentence')}"


def _save(dataset: FileDataset, target: Path, planter: Planter) -> None:
    for tag, vr in _profile():
        if tag >> 16 in _LAST:
            dataset[tag] = DataElement(tag, vr, planter.value(tag, vr))
    dataset.save_as(target, enforce_file_format=False)
    with target.open("ab") as stream:
        stream.write(planter.text("after the end of the data set").encode() * 3)


def _still(target: Path, planter: Planter) -> None:
    dataset = _real("JPGLosslessP14SV1_1s_1f_8b.dcm")
    _everywhere(dataset, planter)
    _save(dataset, target, planter)


def _panels(target: Path, planter: Planter) -> None:
    dataset = _real("gdcm-US-ALOKA-16.dcm")
    _everywhere(dataset, planter)
    _save(dataset, target, planter)


def _clip(target: Path, planter: Planter) -> None:
    dataset = _real("examples_ybr_color.dcm")
    _everywhere(dataset, planter)
    _save(dataset, target, planter)


def _draw(picture: Pixels, left: int, top: int) -> None:
    for line, text in enumerate(BURNT_IN):
        location = (left, top + 34 * line)
        cv2.putText(
            picture, text, location, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255,) * 3, 1, cv2.LINE_AA
        )


def _uncompressed(dataset: FileDataset, frames: Pixels, photometric: str) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.set_pixel_data(frames, photometric, 8, generate_instance_uid=False)


def _named_still(target: Path, planter: Planter) -> None:
    dataset = _real("JPGLosslessP14SV1_1s_1f_8b.dcm")
    picture = pixel_array(dataset).copy()
    _draw(picture, 420, 420)
    _uncompressed(dataset, picture, "MONOCHROME2")
    _everywhere(dataset, planter)
    _save(dataset, target, planter)


def _named_clip(target: Path, planter: Planter) -> None:
    """Text inside the sector of a clip, in eight of its twelve frames."""
    dataset = _real("color3d_jpeg_baseline.dcm")
    frames = (
        pixel_array(dataset, index=None)
        if int(dataset.NumberOfFrames) <= 12
        else _first(dataset, 12)
    )
    for frame in frames[2:10]:
        _draw(frame, 220, 220)
    _uncompressed(dataset, frames, "RGB")
    _everywhere(dataset, planter)
    _save(dataset, target, planter)


def _first(dataset: FileDataset, count: int) -> Pixels:
    return np.stack([pixel_array(dataset, index=index) for index in range(count)])


def _scripts(target: Path, planter: Planter) -> None:
    """Names of other scripts on one still, grey on tissue."""
    dataset = _real("JPGLosslessP14SV1_1s_1f_8b.dcm")
    picture = pixel_array(dataset).copy()
    for line, (script, ink) in enumerate(name_inks().items()):
        draw_ink(picture, ink, 400, 240 + 48 * line)
        planter.inks[f"a name in {script}"] = ink
    _write_picture(dataset, picture, "MONOCHROME2", target, planter)


def _code(target: Path, planter: Planter) -> None:
    """A QR code on a still."""
    dataset = _real("JPGLosslessP14SV1_1s_1f_8b.dcm")
    picture, secret = pixel_array(dataset).copy(), planter.text("a QR code")
    ink = code_ink(f"MRN 8140277 {secret}")
    draw_ink(picture, ink, 450, 350, solid=True)
    planter.inks["a QR code"] = ink
    _write_picture(dataset, picture, "MONOCHROME2", target, planter)


def _first_frame(target: Path, planter: Planter) -> None:
    """A patient card in the first frame of a clip."""
    dataset, frames = _cine(12)
    frames[0] = 0
    for line, text in enumerate(("BEGUM FATIMA", "MRN 5512093", "GEB 03.11.1951", "KLINIK NORD")):
        ink = text_ink(text)
        draw_ink(frames[0], ink, 170, 120 + 60 * line, solid=True)
        planter.inks[f"line {line} of a card"] = ink
    _write_picture(dataset, frames, "RGB", target, planter)


def _one_frame(target: Path, planter: Planter) -> None:
    """A name in one frame in the middle of a clip."""
    dataset, frames = _cine(12)
    ink = text_ink("SILVA JOAO")
    draw_ink(frames[5], ink, 240, 250)
    planter.inks["a name in one frame"] = ink
    _write_picture(dataset, frames, "RGB", target, planter)


def _moving(target: Path, planter: Planter) -> None:
    """A name that moves through a clip."""
    dataset, frames = _cine(12)
    ink = text_ink("HANSEN KARI")
    for number in range(3, 9):
        draw_ink(frames[number], ink, 180 + 12 * number, 200 + 8 * number)
    planter.inks["a moving name"] = ink
    _write_picture(dataset, frames, "RGB", target, planter)


def _slides(target: Path, planter: Planter) -> None:
    """A slide show: every frame is another page of text."""
    dataset, frames = _cine(6)
    for number, frame in enumerate(frames):
        frame[:] = 30 * number
        for line in range(3):
            ink = text_ink(f"PATIENT {number}{line} OYELARAN")
            draw_ink(frame, ink, 150, 140 + 70 * line)
            planter.inks[f"line {line} of slide {number}"] = ink
    _write_picture(dataset, frames, "RGB", target, planter)


def _cine(count: int) -> tuple[FileDataset, Pixels]:
    """Frames of a cardiac clip, RGB (F, H, W, 3), of which the sector fills the middle."""
    dataset = _real("color3d_jpeg_baseline.dcm")
    return dataset, _first(dataset, count)


def _write_picture(
    dataset: FileDataset, frames: Pixels, photometric: str, target: Path, planter: Planter
) -> None:
    _uncompressed(dataset, frames, photometric)
    _everywhere(dataset, planter)
    # two files of one instance would be refused as a duplicate
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    _save(dataset, target, planter)


def _torn(target: Path, planter: Planter) -> None:
    _panels(target, planter)
    target.write_bytes(target.read_bytes()[:60_000])


def _odd(target: Path, planter: Planter) -> None:
    """Names where numbers and codes belong, so that decoders and parsers would quote them."""
    dataset = _real("OBXXXX1A_rle.dcm")
    _everywhere(dataset, planter)
    dataset.SpecificCharacterSet = planter.text("(0008,0005)")
    for tag in (0x00280008, 0x00280004, 0x00280103):
        dataset[tag] = DataElement(
            tag, "LO", planter.text(f"({tag >> 16:04X},{tag & 0xFFFF:04X}), of another kind")
        )
    dataset.PixelData = encapsulate([planter.text("pixels that are none").encode() * 9])
    dataset.save_as(target, enforce_file_format=False)


def _other_modality(target: Path, planter: Planter) -> None:
    dataset = _real("MR_small.dcm")
    _everywhere(dataset, planter)
    _save(dataset, target, planter)


def _note(target: Path, planter: Planter) -> None:
    target.with_suffix(".txt").write_text(f"Report of {planter.text('a text file')}\n")
