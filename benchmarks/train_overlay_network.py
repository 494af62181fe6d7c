"""Train the network that finds overlays (text in any script, QR codes, barcodes) in scans.

    apt-get install fonts-noto-core fonts-noto-cjk
    python benchmarks/train_overlay_network.py --busbra BUSBRA --fallmud FALLMUD --out overlays.onnx

The backgrounds are real scans without text (odd patients of BUS-BRA, FALLMUD) and phantoms. On them
the script draws words of random letters in the installed Noto fonts, Hershey fonts of OpenCV, and
codes of zxing-cpp. Serif fonts are left out, because `burnt_in_text.py` measures with them.
Negative examples are callipers, rulers, frames, curves and small digits. Prints one JSON line per
200 steps and writes the ONNX file that `arl.ingest.dicom.overlays` loads.
"""

import argparse
import json
import random
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import torch
import zxingcpp
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from arl.ingest.dicom.burnt_in_text import read_texts
from arl.phantoms.examination import examine
from arl.phantoms.scanner import ALPHA, BETA

CROP, STRIDE = 128, 4  # pixels
NOTO = Path("/usr/share/fonts/truetype/noto")
CJK = Path("/usr/share/fonts/opentype/noto")
# Unicode blocks of the scripts that hospitals write names in
BLOCKS = (
    (0x41, 0x7A), (0xC0, 0x17F), (0x391, 0x3C9), (0x400, 0x45F), (0x5D0, 0x5EA), (0x621, 0x64A),
    (0x905, 0x939), (0x985, 0x9B9), (0xB85, 0xBB9), (0xE01, 0xE30), (0x10D0, 0x10F0),
    (0x1200, 0x1340), (0x531, 0x586), (0x1780, 0x17B3), (0xE81, 0xEB0),
    (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x8FFF), (0xAC00, 0xD7A3),
)  # fmt: skip
HERSHEY = (0, 1, 2, 3, 4)


class OverlayNetwork(nn.Module):
    """Grey image (B, 1, H, W) in [0, 1] to logits (B, 1, H / 4, W / 4) of overlay."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, width, 3, 2, 1), nn.ReLU()
        ]  # fmt: skip
        for dilation in (1, 2, 4, 1):
            layers += [nn.Conv2d(width, width, 3, 1, dilation, dilation), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class Alphabet:
    """Random words of the letters of a script, in a font that has them.

    The choice is by script and not by font, because most fonts have Latin letters. Scripts of thin
    or sparse strokes, which are hard to tell from speckle, come `_HARD` times as often as others.
    """

    _HARD, _HARD_BLOCKS = 3, (0x5D0, 0x621, 0xAC00)  # Hebrew, Arabic, Hangul

    def __init__(self) -> None:
        self._scripts: dict[tuple[int, int], list[tuple[Path, list[str]]]] = {}
        for file in sorted(NOTO.glob("NotoSans*.ttf")):
            if "Symbols" not in file.name and "Math" not in file.name:
                self._add(file, TTFont(file))
        for file in sorted(CJK.glob("NotoSansCJK-*.ttc")):
            self._add(file, TTCollection(file).fonts[0])

    def _add(self, file: Path, font: TTFont) -> None:
        points = set(font.getBestCmap())
        for low, high in BLOCKS:
            letters = [chr(p) for p in range(low, high + 1) if p in points and chr(p).isalpha()]
            if len(letters) > 15:
                self._scripts.setdefault((low, high), []).append((file, letters))

    def word(self, rng: random.Random) -> tuple[str, str]:
        """(font file, text)."""
        weights = [self._HARD if low in self._HARD_BLOCKS else 1 for low, _ in self._scripts]
        (script,) = rng.choices(list(self._scripts), weights)
        if rng.random() < 0.15:
            latin = rng.choice(self._scripts[BLOCKS[0]])[0]
            return str(latin), "".join(
                rng.choice("0123456789.-/: ") for _ in range(rng.randint(6, 12))
            )
        file, letters = rng.choice(self._scripts[script])
        dense = unicodedata.east_asian_width(letters[-1]) == "W"
        text = "".join(rng.choice(letters) for _ in range(rng.randint(2, 5 if dense else 12)))
        if not dense and rng.random() < 0.3:
            text = text.upper()
        if rng.random() < 0.25:
            text += " " + "".join(rng.choice(letters) for _ in range(rng.randint(1, 4)))
        return str(file), text


def draw_text(crop: np.ndarray, target: np.ndarray, words: Alphabet, rng: random.Random) -> None:
    """Draw one word on a crop, and 1 into its box of the target, 2 (ignored) around it."""
    pixels = rng.choice([8, 9, 10, 11, 12, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26, 32, 40])
    if rng.random() < 0.12:
        ink = hershey(rng, pixels)
    else:
        file, text = words.word(rng)
        font = ImageFont.truetype(file, max(8, round(pixels / 0.72)))
        left, top, right, bottom = font.getbbox(text)
        if right - left < 4 or bottom - top < 4:
            return
        layer = Image.new("L", (right - left + 2, bottom - top + 2))
        ImageDraw.Draw(layer).text((1 - left, 1 - top), text, fill=255, font=font)
        ink = np.asarray(layer, np.float32) / 255
    if rng.random() < 0.06:
        ink = np.rot90(ink)
    paste(crop, target, ink, rng)


def hershey(rng: random.Random, pixels: int) -> np.ndarray:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    text = "".join(rng.choice(letters) for _ in range(rng.randint(3, 12)))
    font, scale, weight = rng.choice(HERSHEY), pixels / 22, 1 if pixels < 22 else rng.randint(1, 2)
    (width, height), base = cv2.getTextSize(text, font, scale, weight)
    layer = np.zeros((height + base + 2, width + 2), np.uint8)
    cv2.putText(layer, text, (1, height + 1), font, scale, 255, weight, cv2.LINE_AA)
    return layer.astype(np.float32) / 255


def draw_code(crop: np.ndarray, target: np.ndarray, rng: random.Random) -> None:
    """Draw a QR code or another code on a crop."""
    kind = rng.choice(["QRCode", "QRCode", "DataMatrix", "Code128", "PDF417", "Aztec"])
    text = "".join(rng.choice("ABCDEFGHIJ0123456789") for _ in range(rng.randint(6, 40)))
    code = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, kind))
    ink = np.asarray(code.to_image(scale=rng.randint(1, 6), add_quiet_zones=rng.random() < 0.5))
    paste(crop, target, 1 - ink.astype(np.float32) / 255, rng, solid=rng.random() < 0.8)


def paste(
    crop: np.ndarray, target: np.ndarray, ink: np.ndarray, rng: random.Random, solid: bool = False
) -> None:
    """Blend ink (h, w) in [0, 1] at a random position, partly outside the crop at times."""
    height, width = ink.shape
    top = rng.randint(-height // 3, max(1, CROP - height * 2 // 3))
    left = rng.randint(-width // 2, max(1, CROP - width // 2))
    rows = slice(max(0, top), min(CROP, top + height))
    columns = slice(max(0, left), min(CROP, left + width))
    part = ink[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    if part.size == 0 or (part > 0.5).sum() < 12:
        return
    back = crop[rows, columns]
    level = float(back.mean())
    contrast = rng.choice([50, 60, 60, 60, 70, 80, 100, 130, 160, 255])
    bright = level + contrast if level + contrast <= 255 or level < contrast else level - contrast
    bright = min(255.0, max(0.0, bright))
    if solid or rng.random() < 0.12:
        # a filled box behind the text, as banners and labels have
        back = np.full_like(back, rng.choice([0, 0, 20, 60, 255, 255, level]))
        bright = 255.0 if back.flat[0] < 128 else 0.0
    elif rng.random() < 0.08:
        # a dark outline around the letters
        grown = cv2.dilate(part, np.ones((3, 3), np.uint8))
        back = back * (1 - grown)
    crop[rows, columns] = back + (bright - back) * part
    ring = 5
    box = target[max(0, rows.start - ring) : rows.stop + ring,
                 max(0, columns.start - ring) : columns.stop + ring]  # fmt: skip
    box[box == 0] = 2
    target[rows, columns] = 1


def draw_graphics(crop: np.ndarray, rng: random.Random) -> None:
    """Callipers, rulers, frames, curves and sector edges: overlays that name nobody."""
    for _ in range(rng.randint(1, 5)):
        level, x, y = (
            rng.choice([90, 140, 200, 255]),
            rng.randint(4, CROP - 4),
            rng.randint(4, CROP - 4),
        )
        size, kind = rng.randint(3, 9), rng.randint(0, 8)
        if kind <= 1:
            marker = rng.choice([cv2.MARKER_CROSS, cv2.MARKER_TILTED_CROSS, cv2.MARKER_DIAMOND])
            cv2.drawMarker(crop, (x, y), level, marker, 2 * size, rng.randint(1, 2), cv2.LINE_AA)
        elif kind == 2:
            end = np.array([rng.randint(0, 127), rng.randint(0, 127)])
            for t in np.arange(0, 1, rng.uniform(0.02, 0.1)):
                dot = np.round(np.array([x, y]) + t * (end - [x, y])).astype(int)
                cv2.circle(crop, (int(dot[0]), int(dot[1])), rng.randint(0, 1), level, -1)
        elif kind == 3:
            for step in range(0, CROP, rng.randint(6, 30)):
                cv2.line(crop, (x, step), (x + size, step), level, 1)
        elif kind == 4:
            cv2.rectangle(crop, (x, y), (rng.randint(0, 127), rng.randint(0, 127)), level, 1)
        elif kind == 5:
            line = np.stack([np.arange(CROP), y + 12 * np.sin(np.arange(CROP) / size)], 1)
            cv2.polylines(crop, [line.astype(np.int32)], False, level, 1, cv2.LINE_AA)
        elif kind == 6:
            axes = (rng.randint(10, 80), rng.randint(10, 80))
            cv2.ellipse(crop, (x, y), axes, rng.randint(0, 180), 0, 360, level, 1, cv2.LINE_AA)
        elif kind == 7:
            # outside of a sector: black with a sharp edge
            edge = [[0, 0], [rng.randint(20, 120), 0], [0, rng.randint(20, 120)]]
            flip = rng.random() < 0.5
            corners = np.array([[127 - a if flip else a, b] for a, b in edge])
            cv2.fillConvexPoly(crop, corners, 0, cv2.LINE_AA if rng.random() < 0.5 else 8)
        else:
            text = rng.choice("0123456789+")
            cv2.putText(crop, text, (x, y), 0, 0.4, level, 1, cv2.LINE_AA)


def backgrounds(arguments: argparse.Namespace) -> list[np.ndarray]:
    """Grey scans without words, from halves of BUS-BRA and FALLMUD, and phantoms."""
    files = sorted(arguments.fallmud.rglob("images/*"))[::2]
    files += [
        file
        for file in sorted((arguments.busbra / "Images").glob("*.png"))
        if int(file.stem[4:8]) % 2
    ]
    images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    clean = [
        image for image in images if all(len(text.text.strip()) <= 1 for text in read_texts(image))
    ]
    for seed in range(60):
        anatomy = ("abdominal", "lung", "thyroid", "cardiac", "breast")[seed % 5]
        scanner = (ALPHA, BETA)[seed // 5 % 2]
        clean += [phantom.image for phantom in examine(anatomy, scanner, [seed], [None], 400)]
    return clean


def background(images: list[np.ndarray], rng: random.Random) -> np.ndarray:
    """A crop (CROP, CROP), float32 grey levels, scaled, mirrored and with another gain."""
    if rng.random() < 0.06:
        level = rng.choice([0, 0, 0, 10, 40, 128, 255])
        return np.full((CROP, CROP), level, np.float32)
    image = rng.choice(images)
    scale = rng.choice([0.5, 0.7, 1, 1, 1, 1, 1.3, 1.7, 2.2])
    if min(image.shape) * scale < CROP:
        scale = CROP / min(image.shape) + 0.01
    side = int(CROP / scale) + 1
    top, left = (rng.randint(0, max(0, length - side)) for length in image.shape)
    part = image[top : top + side, left : left + side]
    how = rng.choice([cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC])
    crop = cv2.resize(part, (CROP, CROP), interpolation=how).astype(np.float32)
    if rng.random() < 0.5:
        crop = crop[:, ::-1].copy()
    if rng.random() < 0.6:
        crop = 255 * (crop / 255) ** rng.uniform(0.6, 1.6) * rng.uniform(0.6, 1.3)
    if rng.random() < 0.2:
        crop += np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 14), crop.shape)
    if rng.random() < 0.15:
        crop = np.round(crop / 24) * 24
    if rng.random() < 0.1:
        crop = sharpened(crop)
    return crop.clip(0, 255)


def sharpened(crop: np.ndarray) -> np.ndarray:
    """Edge enhancement, as scanners offer it."""
    return crop + 1.2 * (crop - cv2.GaussianBlur(crop, (0, 0), 1.2))


def example(images: list[np.ndarray], words: Alphabet, rng: random.Random) -> tuple:
    """An image (CROP, CROP) uint8 and its target at stride 4: 0, 1, or 2 where it is ignored."""
    crop, target = background(images, rng), np.zeros((CROP, CROP), np.uint8)
    if rng.random() < 0.45:
        drawn = crop.astype(np.uint8)
        draw_graphics(drawn, rng)
        crop = drawn.astype(np.float32)
    if rng.random() < 0.6:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            draw_text(crop, target, words, rng)
    elif rng.random() < 0.15:
        draw_code(crop, target, rng)
    image = crop.clip(0, 255).astype(np.uint8)
    if rng.random() < 0.12:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7))
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, rng.randint(50, 98)]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_GRAYSCALE)
    return image, target[1::STRIDE, 1::STRIDE]


def batches(arguments: argparse.Namespace, images: list[np.ndarray]):
    words, rng = Alphabet(), random.Random(arguments.seed)
    while True:
        pairs = [example(images, words, rng) for _ in range(arguments.batch)]
        yield tuple(
            torch.from_numpy(np.stack(part)).unsqueeze(1) for part in zip(*pairs, strict=True)
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busbra", type=Path, required=True)
    parser.add_argument("--fallmud", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.manual_seed(arguments.seed)
    network = OverlayNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, arguments.steps)
    source = batches(arguments, backgrounds(arguments))
    for step, (image, target) in zip(range(arguments.steps), source, strict=False):
        logits = network(image.float() / 255)
        weight = (target != 2).float() * (1 + (target == 1).float())
        loss = F.binary_cross_entropy_with_logits(logits, (target == 1).float(), weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 199:
            hit = (logits > 0) == (target == 1)
            counts = {
                "recall": hit[target == 1].float().mean().item(),
                "specificity": hit[target == 0].float().mean().item(),
            }
            print(json.dumps({"step": step + 1, "loss": loss.item(), **counts}), flush=True)
            save(network, arguments.out)
    save(network, arguments.out)


def save(network: OverlayNetwork, file: Path) -> None:
    """Write the network with probabilities as output, for images of any size."""
    model = nn.Sequential(network, nn.Sigmoid()).eval()
    axes = {"image": {2: "height", 3: "width"}, "overlay": {2: "rows", 3: "columns"}}
    torch.onnx.export(
        model, (torch.zeros(1, 1, CROP, CROP),), str(file), dynamo=False, opset_version=17,
        input_names=["image"], output_names=["overlay"], dynamic_axes=axes,
    )  # fmt: skip


if __name__ == "__main__":
    main()
