"""What the audit draws into the pixels of real files: names, cards, slides and codes.

Each scene draws on the frames of one file, uint8 (F, H, W) or RGB (F, H, W, 3), and returns its
inks by name, so that the search can look for each of them in what ingest stores.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2

from arl.corpus.record import Pixels
from arl.ingest.phi_audit.burnt_in import Ink, code_ink, draw_ink, name_inks, text_ink

BURNT_IN = ("OKONKWO ADAEZE", "MRN 8140277", "14.07.1938")  # read by OCR in the search
# The scans lie in other parts of these screens than the text of the makers.
_STILL, _CLIP = "JPGLosslessP14SV1_1s_1f_8b.dcm", "color3d_jpeg_baseline.dcm"


@dataclass(frozen=True)
class Scene:
    """A drawing on the first frames of one file of pydicom-data."""

    file: str
    frames: int
    draw: Callable[[Pixels], dict[str, Ink]]


def stroked_text(picture: Pixels, left: int, top: int) -> None:
    """Draw `BURNT_IN` in the strokes of a scanner's own font."""
    for line, text in enumerate(BURNT_IN):
        corner = (left, top + 34 * line)
        cv2.putText(
            picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255,) * 3, 1, cv2.LINE_AA
        )


def named_still(frames: Pixels) -> dict[str, Ink]:
    """Text at the edge of a still."""
    stroked_text(frames[0], 420, 420)
    return {}


def named_clip(frames: Pixels) -> dict[str, Ink]:
    """Text inside the sector of a clip, in all frames but the first two and the last two."""
    for frame in frames[2:-2]:
        stroked_text(frame, 220, 220)
    return {}


def scripts(frames: Pixels) -> dict[str, Ink]:
    """Names of other scripts on one still, grey on tissue."""
    inks = name_inks()
    for line, ink in enumerate(inks.values()):
        draw_ink(frames[0], ink, 400, 230 + 46 * line)
    return {f"a name in {script}": ink for script, ink in inks.items()}


def qr_code(frames: Pixels) -> dict[str, Ink]:
    """A QR code on a still."""
    ink = code_ink("MRN 8140277 OKONKWO 14.07.1938", "QRCode")
    draw_ink(frames[0], ink, 450, 350, solid=True)
    return {"a QR code": ink}


def barcode(frames: Pixels) -> dict[str, Ink]:
    """A barcode of letters and digits on a still."""
    ink = code_ink("MRN8140277", "Code128")
    draw_ink(frames[0], ink, 430, 350, solid=True)
    return {"a barcode": ink}


def patient_card(frames: Pixels) -> dict[str, Ink]:
    """A patient card in the first frame of a clip."""
    frames[0] = 0
    inks = {}
    for line, text in enumerate(("BEGUM FATIMA", "MRN 5512093", "GEB 03.11.1951", "KLINIK NORD")):
        inks[f"line {line} of a card"] = ink = text_ink(text)
        draw_ink(frames[0], ink, 170, 120 + 60 * line, solid=True)
    return inks


def one_frame(frames: Pixels) -> dict[str, Ink]:
    """A name in one frame in the middle of a clip."""
    ink = text_ink("SILVA JOAO")
    draw_ink(frames[5], ink, 240, 250)
    return {"a name in one frame": ink}


def moving_name(frames: Pixels) -> dict[str, Ink]:
    """A name that moves through a clip."""
    ink = text_ink("HANSEN KARI")
    for number in range(3, 9):
        draw_ink(frames[number], ink, 180 + 12 * number, 200 + 8 * number)
    return {"a moving name": ink}


def flashing_name(frames: Pixels) -> dict[str, Ink]:
    """A name in every other frame of a clip."""
    ink = text_ink("MBEKI THANDI")
    for frame in frames[1::2]:
        draw_ink(frame, ink, 220, 300)
    return {"a flashing name": ink}


def slide_show(frames: Pixels) -> dict[str, Ink]:
    """Every frame is another page of text."""
    inks = {}
    for number, frame in enumerate(frames):
        frame[:] = 30 * number
        for line in range(3):
            ink = text_ink(f"PATIENT {number}{line} OYELARAN")
            draw_ink(frame, ink, 150, 140 + 70 * line)
            inks[f"line {line} of slide {number}"] = ink
    return inks


SCENES = (
    Scene(_STILL, 1, named_still),
    Scene(_CLIP, 12, named_clip),
    Scene(_STILL, 1, scripts),
    Scene(_STILL, 1, qr_code),
    Scene(_STILL, 1, barcode),
    Scene(_CLIP, 12, patient_card),
    Scene(_CLIP, 12, one_frame),
    Scene(_CLIP, 12, moving_name),
    Scene(_CLIP, 12, flashing_name),
    Scene(_CLIP, 6, slide_show),
)
