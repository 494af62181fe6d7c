"""The smallest H.264 encoder: every macroblock is I_PCM, raw samples (ITU-T H.264, 7.3)."""

import re

import cv2
import numpy as np


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def u(self, value: int, width: int) -> "_Bits":
        self.text += f"{value:0{width}b}"
        return self

    def ue(self, *values: int) -> "_Bits":
        """Exponential Golomb codes."""
        for value in values:
            code = f"{value + 1:b}"
            self.text += "0" * (len(code) - 1) + code
        return self

    def nal(self, header: int, payload: bytes = b"") -> bytes:
        """A NAL unit: start code, header, bits, whole bytes, stop bit, emulation prevention."""
        head = self.text + "0" * (-len(self.text) % 8) if payload else self.text + "1"
        head += "0" * (-len(head) % 8)
        body = (
            int(head, 2).to_bytes(len(head) // 8, "big") + payload + (b"\x80" if payload else b"")
        )
        escaped = re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", body)
        return b"\0\0\0\1" + bytes([header]) + escaped


def encode(frames: np.ndarray) -> bytes:
    """Annex B stream of RGB frames uint8 (N, H, W, 3), H and W multiples of 16; all IDR."""
    rows, columns = frames.shape[1] // 16, frames.shape[2] // 16
    # Baseline, level 4: parameter set 0, 4-bit frame numbers, picture order 2, no reference frames,
    # frames only
    sps = (
        _Bits()
        .u(66, 8)
        .u(0, 8)
        .u(40, 8)
        .ue(0, 0, 2, 0)
        .u(0, 1)
        .ue(columns - 1, rows - 1)
        .u(0b1100, 4)
    )
    # CAVLC, one slice group, no weighting, QP 26, no chroma offset, deblocking is told by the slice
    pps = _Bits().ue(0, 0).u(0, 2).ue(0, 0, 0).u(0, 3).ue(0, 0, 0).u(0b100, 3)
    stream = [sps.nal(0x67), pps.nal(0x68)]
    for number, frame in enumerate(frames):
        # first macroblock 0, I slice, parameter set 0, frame 0, IDR id, no marking, QP as it is, no
        # deblocking
        slice_ = _Bits().ue(0, 7, 0).u(0, 4).ue(number % 2).u(0, 2).ue(0, 1).ue(25)
        stream.append(slice_.nal(0x65, _macroblocks(frame)))
    return b"".join(stream)


def _macroblocks(frame: np.ndarray) -> bytes:
    planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
    height, width = frame.shape[:2]
    luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
    blocks = [
        luma[16 * r : 16 * r + 16, 16 * c : 16 * c + 16].tobytes()
        + chroma[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].tobytes()
        for r in range(height // 16)
        for c in range(width // 16)
    ]
    # mb_type 25 in front of all but the first, whose code closes the header: 000011010, aligned
    return b"\x0d\0".join(blocks)
