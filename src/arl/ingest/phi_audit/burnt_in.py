"""Names and codes drawn into scans: any script, any frame, moving, as a card, as a QR code."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
import zxingcpp
from PIL import Image, ImageDraw, ImageFont

from arl.corpus.record import Pixels

Ink = npt.NDArray[np.float32]  # (h, w) in [0, 1]

_DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
_CJK = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
_SIZE = 30  # of the letters, pixels
_CONTRAST = 90  # grey levels above the tissue
_VISIBLE = 0.6  # correlation with the ink from which a stored image still shows it

# DejaVu comes with matplotlib; the CJK scripts need Debian's fonts-noto-cjk.
NAMES = {
    "Latin": "OKAFOR^NGOZI",
    "Cyrillic": "Кузнецов Пётр",
    "Greek": "Παπαδόπουλος",
    "Arabic": "محمد الزهراني",
    "Hebrew": "אברהם מזרחי",
    "Hangul": "남궁민수",
    "Chinese": "欧阳建国",
    "Japanese": "たなか 花子",
}
_NEED_CJK = ("Hangul", "Chinese", "Japanese")


def name_inks() -> dict[str, Ink]:
    """Script -> its name as ink, for the scripts that the installed fonts have."""
    return {
        script: text_ink(name, _CJK if script in _NEED_CJK else _DEJAVU)
        for script, name in NAMES.items()
        if script not in _NEED_CJK or _CJK.is_file()
    }


def text_ink(text: str, font_file: Path = _DEJAVU, size: int = _SIZE) -> Ink:
    """A text as coverage of pixels; `size` of the font in pixels."""
    font = ImageFont.truetype(str(font_file), size)
    left, top, right, bottom = font.getbbox(text)
    layer = Image.new("L", (round(right - left) + 2, round(bottom - top) + 2))
    ImageDraw.Draw(layer).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(layer, np.float32) / np.float32(255)


def code_ink(text: str, kind: str) -> Ink:
    """A code of a kind of zxing-cpp, e.g. QRCode or Code128, white with black modules."""
    code = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, kind))
    # 4 pixels a module of a QR code, 2 of a barcode, which is long
    scale = 4 if kind == "QRCode" else 2
    return np.asarray(code.to_image(scale=scale), np.float32) / np.float32(255)


def draw_ink(
    picture: Pixels,
    ink: Ink,
    left: int,
    top: int,
    *,
    solid: bool = False,
    contrast: int = _CONTRAST,
) -> None:
    """Draw ink on a grey or RGB picture, `contrast` levels brighter than the tissue, or opaque."""
    height, width = ink.shape
    window = picture[top : top + height, left : left + width]
    cover = ink if window.ndim == 2 else ink[..., None]
    if solid:
        window[:] = (255 * cover).astype(np.uint8)
    else:
        level = min(255.0, float(window.mean()) + contrast)
        window[:] = (window * (1 - cover) + level * cover).round().astype(np.uint8)


def is_visible(image: Pixels, ink: Ink, scale: float) -> bool:
    """Whether a stored image, scaled by `scale`, still shows the ink anywhere."""
    size = max(4, round(ink.shape[1] * scale)), max(4, round(ink.shape[0] * scale))
    template = cv2.resize((255 * ink).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    if template.shape[0] > image.shape[0] or template.shape[1] > image.shape[1]:
        return False
    # The correlation of a flat window, e.g. a masked one, is not a number.
    match = cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED)
    return bool(np.nanmax(np.where(np.isfinite(match), match, 0)) > _VISIBLE)
