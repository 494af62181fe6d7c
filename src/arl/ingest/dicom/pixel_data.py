"""Pixels of a DICOM file, frame by frame, with all counts and sizes checked before decoding.

Decoders: pydicom with pillow, gdcm, openjpeg, charls and rle; FFmpeg of OpenCV for video (no GPL).
A file is refused if its frame count contradicts its pixels, if a codestream has another size than
the header, or if a decoder reports damage. Messages hold fixed words and numbers only: neither
attribute values nor messages of decoders, which quote them.
"""

import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_color_lut, convert_color_space, iter_pixels
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    MPEGTransferSyntaxes,
    RLELossless,
)

from arl.corpus.record import Pixels, Refused
from arl.ingest.dicom.scan_region import coloured_fraction
from arl.ingest.transient import is_transient
from arl.ingest.video import read_frames

MAX_FRAME_PIXELS = 1 << 24
MAX_FRAMES = 1 << 16
MAX_INFLATED = 1 << 28  # bytes of a deflated data set
# Scans deflate to a third; screens that are mostly black to a fiftieth.
_MAX_RATIO, _MIN_INFLATED = 100, 1 << 24
_MAX_META = 1 << 20  # bytes of one element of the meta information

# errors of pydicom and its decoders on damaged or unusual files
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    BytesLengthException,
    InvalidDicomError,
    SyntaxError,  # Pillow on a broken stream
    Image.DecompressionBombError,
)

_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
_VIDEO = frozenset(MPEGTransferSyntaxes)  # and HEVC
_BASELINE = (JPEGBaseline8Bit, JPEGExtended12Bit)
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF  # length of encapsulated pixel data
# JPEG and JPEG-LS; JPEG 2000; JPEG XL
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\x00\x00\x00\x0c")
# words of the warnings of libjpeg and OpenJPEG on damaged data
_WARNINGS = (b"orrupt", b"Bogus", b"remature", b"not defined", b"xpected")
_YCBCR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420")
# A fraction of coloured pixels above the first is a tint if the other reading has less than half.
_TINTED = 0.5


@contextmanager
def quiet(what: str) -> Iterator[None]:
    """Silence pydicom, whose messages quote attribute values, and turn its errors into refusals.

    Raises:
        Refused: pydicom or a decoder failed; `what` names the part of the file.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DAMAGE as error:
        if is_transient(error):
            raise
        raise Refused(f"{what} ({type(error).__name__})") from None
    finally:
        # Other users of pydicom in this process keep their logs.
        logger.setLevel(level)


def is_dicom(path: Path) -> bool:
    """Whether the content of a file is DICOM, with or without a preamble; its name does not matter.

    Raises:
        Refused: the path is a FIFO, a device or another special file.
    """
    check_regular(path)
    with path.open("rb") as stream:
        head = stream.read(_MAGIC_OFFSET + len(_MAGIC))
    return head[_MAGIC_OFFSET:] == _MAGIC or _bare_syntax(head) is not None


def check_regular(path: Path) -> None:
    """Refuse a special file before it is opened: reading a FIFO would wait for ever.

    Raises:
        Refused: the path is no regular file, or a link to nothing.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise Refused("it is missing, or a link to a file that does not exist") from None
    except OSError as error:
        if is_transient(error):
            raise
        raise Refused("it is a link that cannot be resolved") from None
    if not stat.S_ISREG(mode):
        raise Refused("it is not a regular file")


def _bare_syntax(head: bytes) -> UID | None:
    """The transfer syntax of a data set without preamble and meta information; None: no DICOM."""
    if len(head) < 12:
        return None
    # Data sets begin with the meta information (0002) or the identification (0008), in order.
    group, element = struct.unpack("<HH", head[:4])
    if group not in (0x0002, 0x0008) or element > 0x0100:
        return None
    if head[4:6] in (b"UI", b"UL", b"CS", b"OB", b"DA", b"TM", b"SH", b"LO"):
        return ExplicitVRLittleEndian
    (length,) = struct.unpack("<I", head[4:8])
    return ImplicitVRLittleEndian if group == 0x0008 and length <= 256 else None


@contextmanager
def open_dataset(path: Path) -> Iterator[tuple[BinaryIO, UID | None]]:
    """A stream of a file as pydicom reads it, and its transfer syntax where the file states none.

    A deflated data set is inflated, up to `MAX_INFLATED` bytes.

    Raises:
        Refused: the data set inflates to more, or is damaged.
    """
    with path.open("rb") as stream:
        head = stream.read(_MAGIC_OFFSET + len(_MAGIC))
        stream.seek(0)
        if head[_MAGIC_OFFSET:] != _MAGIC:
            yield stream, None if head[:2] == b"\x02\x00" else _bare_syntax(head)
            return
        meta_length = _deflated_from(stream)
        stream.seek(0)
        if meta_length is None:
            yield stream, None
            return
        inflated = _inflated(stream, meta_length)
    with inflated:
        yield inflated, ExplicitVRLittleEndian


def _deflated_from(stream: BinaryIO) -> int | None:
    """Where the deflated data set begins, behind the meta information; None: it is not deflated."""
    stream.seek(_MAGIC_OFFSET + len(_MAGIC))
    deflated = False
    while True:
        start = stream.tell()
        tag = stream.read(8)
        if len(tag) < 8 or tag[:2] != b"\x02\x00":
            return start if deflated else None
        if tag[4:6] in (b"OB", b"UN", b"OW", b"UT", b"SQ"):
            length = int.from_bytes(stream.read(4), "little")
        else:
            length = int.from_bytes(tag[6:8], "little")
        if length > _MAX_META:
            return None
        value = stream.read(length)
        if tag[:4] == b"\x02\x00\x10\x00":
            deflated = value.rstrip(b"\0 ") == DeflatedExplicitVRLittleEndian.encode()


def _inflated(stream: BinaryIO, start: int) -> BytesIO:
    """The data set alone, inflated; it is explicit little endian."""
    # A bomb inflates a thousandfold; its ratio gives it away before the memory is full.
    limit = min(MAX_INFLATED, max(_MIN_INFLATED, _MAX_RATIO * _remaining(stream)))
    stream.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    target = BytesIO()
    with quiet("its deflated data set is damaged"):
        while not inflater.eof and (packed := stream.read(1 << 20)):
            while packed and not inflater.eof:
                target.write(inflater.decompress(packed, 1 << 20))
                packed = inflater.unconsumed_tail
                if target.tell() > limit:
                    raise Refused(f"its data set inflates to more than {limit >> 20} MiB")
    if not inflater.eof:
        raise Refused("its deflated data set is cut off")
    target.seek(0)
    return target


def read_attributes(path: Path, names: list[str]) -> Dataset:
    """The named attributes of a file, parsed; `file_meta` holds a transfer syntax in any case.

    Raises:
        Refused: the file is not DICOM, or its header is damaged.
    """
    if not is_dicom(path):
        raise Refused("it is not a DICOM file")
    with open_dataset(path) as (stream, syntax), quiet("its DICOM header is damaged"):
        header = dcmread(stream, stop_before_pixels=True, specific_tags=names, force=True)
        # pydicom parses an element at its first access: parse all here, so that damage shows here.
        header.walk(lambda _, element: element.value)
        if syntax is not None:
            header.file_meta.TransferSyntaxUID = syntax
    return header


class DecoderOptions(TypedDict):
    """Options of pydicom's decoders, with the values that files may lack or state wrongly."""

    transfer_syntax_uid: UID
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    planar_configuration: int
    photometric_interpretation: str
    number_of_frames: int


@dataclass(frozen=True)
class _Fragment:
    offset: int  # in the stream
    length: int  # bytes
    start: bytes  # first bytes


@dataclass(frozen=True)
class Encapsulated:
    """The items of compressed pixel data behind the offset table.

    Attributes:
        table: length of the offset table, bytes.
        fragments: the other items; a frame is one or more of them.
    """

    table: int
    fragments: tuple[_Fragment, ...]

    @classmethod
    def read(cls, stream: BinaryIO) -> "Encapsulated":
        """Locate the items.

        Raises:
            Refused: the items are damaged or cut off, or there is no frame.
        """
        items = []
        while True:
            head = stream.read(8)
            if len(head) < 8:
                raise Refused("its pixel data are cut off")
            group, element, length = struct.unpack("<HHI", head)
            tag = (group << 16) + element
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise Refused("its pixel data are damaged: an item is missing")
            # The length comes before the memory: a wrong one may state 4 GiB.
            if length > _remaining(stream):
                raise Refused("its pixel data are cut off")
            offset = stream.tell()
            items.append(_Fragment(offset, length, stream.read(min(length, 12))))
            stream.seek(offset + length)
        if len(items) < 2:
            raise Refused("its pixel data hold no frame")
        return cls(items[0].length, tuple(items[1:]))

    def count(self, stated: int | None, syntax: UID) -> int:
        """Frames, by the starts of codestreams, or else by the offset table or the header."""
        if syntax == RLELossless or len(self.fragments) == 1:
            return len(self.fragments)
        starts = sum(fragment.start.startswith(_STARTS) for fragment in self.fragments)
        return starts or self.table // 4 or stated or len(self.fragments)

    def check_sizes(self, stream: BinaryIO, rows: int, columns: int) -> None:
        """Compare the size that each codestream states with the header, before decoding.

        Raises:
            Refused: they differ.
        """
        for fragment in self.fragments:
            stream.seek(fragment.offset)
            size = codestream_size(stream.read(min(fragment.length, 1 << 16)))
            if size is not None and size != (rows, columns):
                raise Refused(
                    f"a compressed frame has {size[0]} x {size[1]} pixels, "
                    f"the header says {rows} x {columns}"
                )

    def codestreams(self, stream: BinaryIO) -> Iterator[bytes]:
        """The codestream of each frame; fragments that do not begin one continue the one before."""
        pending: list[bytes] = []
        for fragment in self.fragments:
            if pending and fragment.start.startswith(_STARTS):
                yield b"".join(pending)
                pending = []
            stream.seek(fragment.offset)
            pending.append(stream.read(fragment.length))
        if pending:
            yield b"".join(pending)


@dataclass(frozen=True)
class PixelData:
    """The pixels of one file, located and counted.

    Attributes:
        count: frames; None for video, whose frames are counted by decoding.
    """

    path: Path
    header: Dataset
    count: int | None
    stated: int | None  # NumberOfFrames
    options: DecoderOptions  # for pydicom, where the header is silent or wrong
    encapsulated: Encapsulated | None  # None: native pixels
    shift: int = 0  # bits to drop, see `with_shift`

    def sample(self, size: int) -> tuple[list[Pixels], "PixelData"]:
        """About `size` frames, evenly spread, and these pixel data with `count` and `shift` known.

        Raises:
            Refused: a frame cannot be decoded, or there is none.
        """
        if self.count is None:
            pictures, count = _spread(self.frames(), size)
            pixels = replace(self, count=count)
        else:
            positions = np.linspace(0, self.count - 1, min(self.count, size))
            indices = sorted({round(position) for position in positions})
            raw = list(self._decode(indices))
            pixels = replace(self, shift=_shift(raw, self.options["bits_stored"]))
            pictures = [_eight_bits(levels, pixels) for levels in raw]
        if not pictures:
            raise Refused("it holds no frame")
        return pictures, pixels

    def frames(self, indices: list[int] | None = None) -> Iterator[Pixels]:
        """Frames as uint8 (H, W) or RGB (H, W, 3), one in memory at a time.

        Raises:
            Refused: a frame cannot be decoded, or its decoder reports damage.
        """
        if self.options["transfer_syntax_uid"] in _VIDEO:
            yield from self._video_frames()
        else:
            yield from (_eight_bits(raw, self) for raw in self._decode(indices))

    def _decode(self, indices: list[int] | None) -> Iterator[npt.NDArray[Any]]:
        """Decoded frames as the file has them: samples of 8 or 16 bits, in its colour space."""
        with open_dataset(self.path) as (stream, _):
            if self.encapsulated is not None and self.options["transfer_syntax_uid"] in _BASELINE:
                # pydicom's decoder hides corrupt entropy-coded data; another one reports them.
                for number, codestream in enumerate(self.encapsulated.codestreams(stream)):
                    if indices is None or number in indices:
                        _check_jpeg(codestream)
            stream.seek(0)
            with quiet("its pixels cannot be decoded"):
                decoder = iter_pixels(stream, indices=indices, raw=True, **self.options)
            with closing(decoder):
                while True:
                    with captured_stderr() as output:
                        with quiet("its pixels cannot be decoded"):
                            raw = next(decoder, None)
                        warned = output()
                    if any(word in warned for word in _WARNINGS):
                        raise Refused("a compressed frame is damaged: its decoder warns")
                    if raw is None:
                        return
                    yield raw

    def _video_frames(self) -> Iterator[Pixels]:
        """Frames of an MPEG or HEVC stream, which is in the fragments of one DICOM frame."""
        with open_dataset(self.path) as (source, _):
            memory = os.fdopen(os.memfd_create("video"), "w+b")
            assert self.encapsulated is not None
            for fragment in self.encapsulated.fragments:
                source.seek(fragment.offset)
                memory.write(source.read(fragment.length))
        with memory:
            memory.flush()
            memory.seek(0)
            count = 0
            for frame in read_frames(memory):
                count += 1
                yield frame
        # Encoders estimate the number; a cut stream lacks more.
        if self.stated is not None and count < self.stated - max(1, self.stated // 20):
            raise Refused(f"its video holds {count} frames, NumberOfFrames is {self.stated}")


def locate_pixels(path: Path, header: Dataset) -> PixelData:
    """Find and count the frames of a file, and check their sizes, without decoding them.

    Raises:
        Refused: there are no pixel data, they are cut off, larger than the limits, or contradict
            the header.
    """
    with quiet("its pixel data are damaged"):
        syntax = UID(header.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
        stated = _stated_frames(header)
        rows, columns = int(header.Rows), int(header.Columns)
        if rows * columns > MAX_FRAME_PIXELS:
            raise Refused(
                f"its frames have {rows} x {columns} pixels, more than {MAX_FRAME_PIXELS}"
            )
        options = _options(header, syntax)
        items = None
        with open_dataset(path) as (stream, _):
            length = _seek_pixels(stream)
            if length == _UNDEFINED:
                items = Encapsulated.read(stream)
                if syntax in _VIDEO:
                    # One codestream holds all frames, so only decoding counts them.
                    return PixelData(path, header, None, stated, options, items)
                count = items.count(stated, syntax)
                items.check_sizes(stream, rows, columns)
            else:
                count = _count_native(header, options, length, _remaining(stream), stated)
    if count > MAX_FRAMES:
        raise Refused(f"it has {count} frames, more than {MAX_FRAMES}")
    if stated is not None and stated != count:
        raise Refused(f"NumberOfFrames is {stated}, its pixel data hold {count} frames")
    options["number_of_frames"] = count
    return PixelData(path, header, count, stated, options, items)


def _stated_frames(header: Dataset) -> int | None:
    """NumberOfFrames; None where the file states none. Zero is none, too."""
    try:
        stated = int(header.get("NumberOfFrames") or 0)
    except (TypeError, ValueError, OverflowError):
        raise Refused("its NumberOfFrames is not a number") from None
    if stated < 0:
        raise Refused("its NumberOfFrames is negative")
    return stated or None


def _options(header: Dataset, syntax: UID) -> DecoderOptions:
    """Options of pydicom's decoders, with the values that files may lack."""
    samples = int(header.get("SamplesPerPixel") or 1)
    allocated = int(header.get("BitsAllocated") or 8)
    if samples not in (1, 3) or allocated not in (8, 16):
        raise Refused(
            f"its pixels have {samples} samples of {allocated} bits, not 1 or 3 of 8 or 16"
        )
    if int(header.get("PixelRepresentation") or 0):
        raise Refused("its pixels are signed numbers")
    colour = "MONOCHROME2" if samples == 1 else "RGB"
    return {
        "transfer_syntax_uid": syntax,
        "samples_per_pixel": samples,
        "bits_allocated": allocated,
        "bits_stored": int(header.get("BitsStored") or allocated),
        "pixel_representation": 0,
        "planar_configuration": int(header.get("PlanarConfiguration") or 0),
        "photometric_interpretation": str(header.get("PhotometricInterpretation") or colour),
        "number_of_frames": 1,
    }


def _seek_pixels(stream: BinaryIO) -> int:
    """Move to the value of the pixel data, and return its length.

    Raises:
        Refused: the file has no pixel data.
    """
    header = dcmread(stream, stop_before_pixels=True, specific_tags=["Rows"], force=True)
    explicit = not bool(header.original_encoding[0])
    tag = stream.read(8)
    if len(tag) < 8:
        raise Refused("it has no pixel data")
    big = not bool(header.original_encoding[1])
    order = ">" if big else "<"
    group, element = struct.unpack(f"{order}HH", tag[:4])
    if (group << 16) + element != _PIXEL_DATA:
        raise Refused("it has no integer pixel data")
    if explicit:
        return int(struct.unpack(f"{order}I", stream.read(4))[0])
    return int(struct.unpack(f"{order}I", tag[4:])[0])


def _remaining(stream: BinaryIO) -> int:
    position = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    return end - position


def _count_native(
    header: Dataset, options: DecoderOptions, length: int, remaining: int, stated: int | None
) -> int:
    """Frames in `length` bytes of native pixels; corrects the colour sampling in `options`."""
    if length > remaining:
        raise Refused("its pixel data are cut off")
    pixels = int(header.Rows) * int(header.Columns)
    width = options["bits_allocated"] // 8
    full = pixels * options["samples_per_pixel"] * width
    if options["samples_per_pixel"] == 3 and width == 1:
        # A file may state the wrong sampling: the length tells it where NumberOfFrames is known.
        half = pixels * 2
        subsampled = "422" in options["photometric_interpretation"]
        frames = stated or 1
        if subsampled and length // frames >= full:
            options["photometric_interpretation"] = "YBR_FULL"
        elif not subsampled and length - length % 2 == half * frames:
            options["photometric_interpretation"] = "YBR_FULL_422"
            subsampled = True
        if subsampled and options["photometric_interpretation"] != "YBR_FULL":
            options["photometric_interpretation"] = "YBR_FULL_422"
            full = half
    count, rest = divmod(length, full)
    # An odd length is padded by one byte.
    if count == 0 or rest > length % 2 + (1 if full % 2 else 0):
        raise Refused(f"its pixel data of {length} bytes are not whole frames of {full} bytes")
    return count


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream states; None: it is none."""
    if data.startswith(b"\xff\x4f\xff\x51") and len(data) >= 24:
        x1, y1, x0, y0 = struct.unpack(">IIII", data[8:24])
        return y1 - y0, x1 - x0
    if not data.startswith(b"\xff\xd8"):
        return None
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        frame_header = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if frame_header or marker == 0xF7:
            rows, columns = struct.unpack(">HH", data[position + 5 : position + 9])
            return rows, columns
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _check_jpeg(codestream: bytes) -> None:
    """Refuse a JPEG codestream on which libjpeg warns.

    Pillow hides the warnings of libjpeg; OpenCV lets them through to the standard error stream.
    """
    data = np.frombuffer(codestream.rstrip(b"\0"), np.uint8)
    if not codestream.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise Refused("a compressed frame is cut off")
    with captured_stderr() as output:
        try:
            decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        except cv2.error:
            decoded = None
        warned = output()
    # 12-bit JPEG is none of OpenCV's formats, so only a warning refuses the frame.
    if any(word in warned for word in _WARNINGS):
        raise Refused("a compressed frame is damaged: its decoder warns")
    del decoded


@contextmanager
def captured_stderr() -> Iterator[Any]:
    """Redirect the standard error stream of C libraries; the value returns what was written."""
    # libjpeg writes to file descriptor 2, which `contextlib.redirect_stderr` does not reach.
    buffer, saved = os.memfd_create("stderr"), os.dup(2)
    os.dup2(buffer, 2)

    def output() -> bytes:
        os.lseek(buffer, 0, os.SEEK_SET)
        return os.read(buffer, 1 << 16)

    try:
        yield output
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(buffer)


def _eight_bits(raw: npt.NDArray[Any], pixels: PixelData) -> Pixels:
    """One decoded frame as uint8, grey or RGB."""
    header, kind = pixels.header, pixels.options["photometric_interpretation"]
    if kind == "PALETTE COLOR":
        with quiet("its colour table is damaged"):
            colours = apply_color_lut(raw, header)
        # Tables of 16 bits hold the colour in the upper byte, or only small values.
        wide = colours.dtype.itemsize > 1 and int(colours.max()) > 255
        return np.asarray(colours >> 8 if wide else colours, np.uint8)
    if raw.dtype.kind != "u":
        raise Refused("its pixels are signed or not whole numbers")
    # The shift comes from a sample of the frames; another frame may be brighter.
    if pixels.shift == 0 and int(raw.max(initial=0)) > 255:
        raise Refused("its frames use different numbers of bits")
    levels = (raw >> pixels.shift).astype(np.uint8)
    if levels.ndim == 3:
        return _rgb(levels, kind)
    return np.asarray(255 - levels if kind == "MONOCHROME1" else levels, np.uint8)


def _shift(sample: list[npt.NDArray[Any]], bits_stored: int) -> int:
    """Bits to drop. Values of at most 8 bits are kept, although the header states more bits."""
    if any(raw.dtype.itemsize == 1 for raw in sample):
        return 0
    used = max((int(raw.max(initial=0)).bit_length() for raw in sample), default=0)
    # A dark clip of 12 bits still uses 9 of them; 8 bits and less are another scale.
    return 0 if used <= 8 else max(used, bits_stored) - 8


def _rgb(levels: Pixels, kind: str) -> Pixels:
    """RGB of three samples, by the header unless the data contradict it.

    Scans are mostly grey. If the reading by the header tints most pixels and the other one, RGB or
    YCbCr, does not, the header is wrong.
    """
    converted = np.asarray(convert_color_space(levels, "YBR_FULL", "RGB"), np.uint8)
    stated, other = (converted, levels) if kind in _YCBCR else (levels, converted)
    tint = coloured_fraction(stated)
    if tint > _TINTED and coloured_fraction(other) < 0.5 * tint:
        return other
    return stated


def _spread(pictures: Iterator[Pixels], size: int) -> tuple[list[Pixels], int]:
    """`size` to twice as many evenly spaced frames of a video, and its number of frames."""
    sample: list[Pixels] = []
    step, count = 1, 0
    for count, picture in enumerate(pictures, start=1):
        if (count - 1) % step == 0:
            sample.append(picture)
        if len(sample) > 2 * size:
            sample, step = sample[::2], 2 * step
    return sample, count
