"""Real ultrasound files of every compression and colour coding, and refusals in fixed words."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import MPEG2MPML, JPEGLSLossless

from arl import params
from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom import frames as dicom
from arl.ingest.dicom.burnt_in_text import KEEP
from arl.ingest.dicom.frames import FrameInfo
from arl.ingest.dicom.pixel_data import is_dicom
from arl.ingest.dicom.rules import AnatomyRules

RULES = AnatomyRules.from_settings(params.load([], Path(__file__).parents[3] / "params.yaml").dicom)


def real(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert found is not None, name
    return Path(str(found))


def frames(
    path: Path, *, burnt_in_text: str = KEEP, stills_by_content: bool = True
) -> Iterator[tuple[Pixels, FrameInfo]]:
    return dicom.frames(
        path, RULES, burnt_in_text=burnt_in_text, stills_by_content=stills_by_content
    )


def read(name: str | Path) -> list[tuple[Pixels, FrameInfo]]:
    return list(frames(real(name) if isinstance(name, str) else name))


# file -> images, shape, rule of the region, anatomy, probe, colour Doppler of the first image
FILES = {
    "JPGLosslessP14SV1_1s_1f_8b.dcm": (1, (721, 997), "tag", "cardiac", "sector", False),
    "gdcm-US-ALOKA-16.dcm": (2, (392, 304), "tag", "abdominal", "convex", False),
    "gdcm-US-ALOKA-16_big.dcm": (2, (392, 304), "tag", "abdominal", "convex", False),
    "OBXXXX1A.dcm": (1, (459, 680), "tag-clamped", "other", "convex", False),
    "OBXXXX1A_2frame.dcm": (2, (459, 680), "tag-clamped", "other", "convex", False),
    "OBXXXX1A_rle.dcm": (1, (459, 680), "tag-clamped", "other", "convex", False),
    "OBXXXX1A_rle_2frame.dcm": (2, (459, 680), "tag-clamped", "other", "convex", False),
    "OBXXXX1A_expb.dcm": (1, (459, 680), "tag-clamped", "other", "convex", False),
    "OBXXXX1A_expb_2frame.dcm": (2, (459, 680), "tag-clamped", "other", "convex", False),
    "examples_ybr_color.dcm": (30, None, "variance", "cardiac", "sector", False),
    "examples_palette.dcm": (1, None, "content", "other", "convex", False),
    "examples_jpeg2k.dcm": (1, None, "content", "soft_tissue", "linear", True),
    "examples_rgb_color.dcm": (1, None, "content", "soft_tissue", "linear", True),
    "US1_UNCR.dcm": (1, None, "content", "soft_tissue", "linear", True),
    "US1_UNCI.dcm": (1, None, "content", "soft_tissue", "linear", True),
    "US1_J2KR.dcm": (1, None, "content", "soft_tissue", "linear", True),
    "US1_J2KI.dcm": (1, None, "content", "soft_tissue", "linear", True),
    "color-pl.dcm": (1, None, "content", "cardiac", "convex", True),
    "color-px.dcm": (1, None, "content", "cardiac", "convex", True),
}


@pytest.mark.parametrize("name", FILES)
def test_every_real_file_gives_its_scans(name: str) -> None:
    count, shape, rule, anatomy, probe, colour = FILES[name]
    images = read(name)
    pixels, info = images[0]
    assert len(images) == count
    assert pixels.dtype == np.uint8
    assert shape is None or pixels.shape == shape
    found = (info.region_rule, info.anatomy, info.probe, info.color_doppler)
    assert found == (rule, anatomy, probe, colour)
    assert pixels.ndim == (3 if colour else 2)


def test_the_cine_is_read_frame_by_frame() -> None:
    """120 frames; the first few are enough to see that none is read ahead of need."""
    iterator = frames(real("color3d_jpeg_baseline.dcm"))
    taken = [next(iterator) for _ in range(5)]
    iterator.close()
    assert [info.frame for _, info in taken] == list(range(5))
    pixels, info = taken[0]
    assert (info.frames, info.regions, pixels.shape, info.probe) == (120, 1, (384, 512), "sector")
    assert info.pixel_spacing_mm == pytest.approx(0.5105, abs=1e-4)  # 0.05105 cm a pixel
    assert info.depth_cm == pytest.approx(0.05104970559 * 384)
    assert info.device == "Fujifilm SonoSite Turbo"


def test_two_panels_are_two_images_without_the_grey_bar() -> None:
    (left, first), (right, second) = read("gdcm-US-ALOKA-16.dcm")
    assert (first.region, second.region, first.regions, first.frame, second.frame) == (
        0,
        1,
        2,
        0,
        0,
    )
    assert not np.array_equal(left, right)
    assert min(left.std(), right.std()) > 20


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "gdcm-US-ALOKA-16.dcm",
            "gdcm-US-ALOKA-16_big.dcm",
        ),  # little and big endian, 16-bit palette
        ("OBXXXX1A.dcm", "OBXXXX1A_rle.dcm"),
        ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm"),
        ("color-pl.dcm", "color-px.dcm"),  # planar configuration 1 and 0
        ("US1_UNCR.dcm", "US1_J2KR.dcm"),  # reversible JPEG 2000
    ],
)
def test_codings_of_one_picture_agree(one: str, other: str) -> None:
    for (left, _), (right, _) in zip(read(one), read(other), strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
    ],
)
def test_decoders_that_no_ultrasound_sample_needs_are_installed(
    compressed: str, plain: str
) -> None:
    assert np.array_equal(pixel_array(real(compressed)), pixel_array(real(plain)))


@pytest.mark.parametrize(
    "name",
    [
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "US1_UNCR.dcm",
        "OBXXXX1A_2frame.dcm",
        "gdcm-US-ALOKA-16.dcm",
    ],
)
def test_ultrasound_in_jpeg_ls_is_read_as_it_was(name: str, tmp_path: Path) -> None:
    """Grey, RGB, a palette in two frames, a palette of 16 bits."""
    file = tmp_path / "jpeg-ls.dcm"
    in_jpeg_ls(real(name), file)
    assert dcmread(file).file_meta.TransferSyntaxUID == JPEGLSLossless
    for (scan, told), (found, other) in zip(read(name), read(file), strict=True):
        assert told == other
        assert np.array_equal(scan, found)
    torn = file.read_bytes()
    file.write_bytes(torn[: len(torn) * 2 // 3])
    with pytest.raises(Refused, match="its pixel data are cut off"):
        read(file)


def in_jpeg_ls(source: Path, target: Path) -> None:
    """GDCM's own encoder."""
    reader, changer, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(source))
    assert reader.Read()
    changer.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLSLossless))
    changer.SetInput(reader.GetImage())
    assert changer.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(changer.GetOutput())
    assert writer.Write()


def test_a_tagged_region_is_cut_out_exactly() -> None:
    name = "JPGLosslessP14SV1_1s_1f_8b.dcm"
    assert np.array_equal(read(name)[0][0], pixel_array(real(name))[38:759, 14:1011])


def test_the_region_of_a_clip_without_tags_is_where_it_was_tagged(tmp_path: Path) -> None:
    def untag(dataset: FileDataset) -> None:
        del dataset.SequenceOfUltrasoundRegions

    pixels, info = next(frames(changed("color3d_jpeg_baseline.dcm", tmp_path, untag)))
    assert info.region_rule == "variance"
    assert pixels.shape == pytest.approx((384, 512), rel=0.06)
    assert info.depth_cm is None
    assert info.pixel_spacing_mm is None


def changed(name: str, folder: Path, change) -> Path:
    """A copy of a real file, changed."""
    file = folder / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(real(name))
        change(dataset)
        dataset.save_as(file, enforce_file_format=False)
    return file


def region(dataset: Dataset, **corners: int) -> None:
    for name, value in corners.items():
        setattr(dataset.SequenceOfUltrasoundRegions[0], f"RegionLocation{name}", value)


@pytest.mark.parametrize(
    ("corners", "rule"),
    [
        ({"MaxX1": 1023, "MaxY1": 767}, "tag"),
        ({"MaxX1": 1024, "MaxY1": 768}, "tag-clamped"),
        ({"MaxX1": 1024 + 9}, "content"),
        ({"MaxY1": 5000}, "content"),
        ({"MinX0": 1000}, "content"),  # ten pixels wide
        ({"MinX0": 1011}, "content"),  # turned inside out
    ],
)
def test_stale_and_off_by_one_regions(tmp_path: Path, corners: dict[str, int], rule: str) -> None:
    file = changed(
        "JPGLosslessP14SV1_1s_1f_8b.dcm", tmp_path, lambda dataset: region(dataset, **corners)
    )
    pixels, info = read(file)[0]
    assert info.region_rule == rule
    assert (info.depth_cm is None) == (rule == "content")
    if rule == "tag-clamped":
        assert pixels.shape == (768 - 38, 1024 - 14)


def test_a_still_without_tags_and_outline_is_refused(tmp_path: Path) -> None:
    file = changed("OBXXXX1A_rle.dcm", tmp_path, _delete("SequenceOfUltrasoundRegions"))
    with pytest.raises(Refused, match="it has no valid region tags, its scan has no clear outline"):
        list(frames(file, stills_by_content=False))
    assert (
        next(frames(real("examples_ybr_color.dcm"), stills_by_content=False))[1].region_rule
        == "variance"
    )


def test_colour_is_measured_inside_the_region() -> None:
    """The screens of both files hold coloured banners; their scans are grey."""
    assert not read("gdcm-US-ALOKA-16.dcm")[0][1].color_doppler
    assert not read("OBXXXX1A.dcm")[0][1].color_doppler


def test_sixteen_bits_and_inverted_levels(tmp_path: Path) -> None:
    name = "JPGLosslessP14SV1_1s_1f_8b.dcm"
    plain = read(name)[0][0]

    def widen(dataset: FileDataset) -> None:
        twelve_bits = dataset.pixel_array.astype(np.uint16) << 4
        dataset.set_pixel_data(twelve_bits, "MONOCHROME2", 12, generate_instance_uid=False)

    def invert(dataset: FileDataset) -> None:
        dataset.set_pixel_data(
            255 - dataset.pixel_array, "MONOCHROME1", 8, generate_instance_uid=False
        )

    assert np.array_equal(read(changed(name, tmp_path, widen))[0][0], plain)
    assert np.array_equal(read(changed(name, tmp_path, invert))[0][0], plain)


def _set(name: str, value: object):
    return lambda dataset: setattr(dataset, name, value)


def _delete(name: str):
    return lambda dataset: delattr(dataset, name)


def _no_syntax(dataset: FileDataset) -> None:
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = encapsulate([b"\x00" * 64])


def _raw_frames(dataset: FileDataset) -> None:
    dataset[0x00280008] = DataElement(0x00280008, "LO", "Nightingale")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("Modality", "MR"), "its modality is not ultrasound"),
        (_delete("Modality"), "it has no Modality"),
        (_delete("Rows"), "it has no Rows, so it holds no picture"),
        (_delete("PixelData"), "it has no pixel data"),
        (_set("PixelData", b"\x00" * 100), "its pixel data of 100 bytes are not whole frames"),
        (_set("PhotometricInterpretation", "Nightingale"), "its pixels cannot be decoded"),
        (_set("PixelRepresentation", 1), "its pixels are signed numbers"),
        (_set("NumberOfFrames", 2), "NumberOfFrames is 2, its pixel data hold 1 frames"),
        (_no_syntax, "its video is not a readable video"),
        (_raw_frames, "its NumberOfFrames is not a number"),
        (_set("PixelData", b"\x00" * (120 * 256 * 3)), "no scan is found in it"),
    ],
)
def test_what_is_wrong_is_a_refusal_in_fixed_words(tmp_path: Path, change, reason: str) -> None:
    file = changed("color-px.dcm", tmp_path, change)
    with pytest.raises(Refused, match=reason) as refusal:
        read(file)
    assert "Nightingale" not in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)


def test_odd_values_are_not_quoted_in_warnings_or_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def misuse(dataset: FileDataset) -> None:
        dataset.SpecificCharacterSet = "Nightingale"

    file = changed("color-px.dcm", tmp_path, misuse)
    caplog.clear()
    assert read(file)  # a warning would be an error
    assert caplog.text == ""


def test_a_thumbnail_is_refused() -> None:
    with pytest.raises(Refused, match="no scan is found"):
        read("ExplVR_BigEnd.dcm")


def test_a_blank_region_is_refused(tmp_path: Path) -> None:
    def blacken(dataset: FileDataset) -> None:
        dataset.set_pixel_data(
            np.zeros((768, 1024), np.uint8), "MONOCHROME2", 8, generate_instance_uid=False
        )

    with pytest.raises(Refused, match="its scan region is blank"):
        read(changed("JPGLosslessP14SV1_1s_1f_8b.dcm", tmp_path, blacken))


@pytest.mark.parametrize("content", [b"", b"DICM", b"\x00" * 128 + b"DICOM", b"\x89PNG\r\n" * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "Nightingale.dcm"
    file.write_bytes(content)
    with pytest.raises(
        Refused,
        match=r"^(it is not a DICOM file|its DICOM header is damaged .*|it has no Modality)$",
    ):
        read(file)
    with pytest.raises(Refused, match="it is missing"):
        read(tmp_path / "absent.dcm")


def test_dicom_is_known_by_its_mark(tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    shutil.copy(real("color-px.dcm"), file)
    assert is_dicom(file)
    assert len(read(file)) == 1


@pytest.mark.parametrize("name", ["color-px.dcm", "gdcm-US-ALOKA-16_big.dcm", "OBXXXX1A_rle.dcm"])
def test_damage_anywhere_never_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    whole = real(name).read_bytes()
    random = np.random.default_rng(len(whole))
    file = tmp_path / "damaged.dcm"
    reasons: list[str] = []
    for number in range(25):
        damaged = bytearray(whole)
        for position in random.integers(132, len(whole) if number % 2 else 4000, 1 + number):
            damaged[position] = random.integers(256)
        file.write_bytes(
            damaged[: random.integers(132, len(whole))] if number % 5 == 0 else damaged
        )
        try:
            read(file)
        except Refused as refusal:
            reasons.append(str(refusal))
    known = ("it", "no ", "a compressed frame", "NumberOfFrames")
    assert [reason for reason in reasons if not reason.startswith(known)] == []
