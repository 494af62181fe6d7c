"""Text burnt into ultrasound: how much of it is found, how much clean tissue is taken for text, at what cost.

    python benchmarks/burnt_in_text.py --busbra BUSBRA [--fallmud FALLMUD] [--repeats 12]

Plants names into real breast scans at heights of capitals from 7 to 20 pixels and at several
contrasts to the tissue,
in three fonts, and prints one JSON line: recall by height and contrast, the share of each planted
name that the mask covers, BUS-BRA's images that are known to hold text, the share of images in
which text is found, and milliseconds per image of one core.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from arl.corpus.record import Pixels
from arl.ingest.dicom.burnt_in_text import StandingText
from arl.ingest.dicom.scan_region import Box
from arl.ingest.pictures import read_picture

KNOWN = ("bus_0571-l", "bus_0912-l", "bus_0955-l")  # "MAMA DIR..."
HEIGHTS = (7, 9, 11, 14, 20)  # of a capital, pixels
CONTRASTS = (30, 60, 100, 160)  # grey levels above the mean of the tissue behind
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf")
NAMES = (
    "NIGHTINGALE F",
    "Mueller, Anna",
    "GARCIA^MARIA",
    "Dr. Okafor",
    "MRN 4711208",
    "12.05.1960",
    "Li Wei",
    "St Mary",
)


def boxes(picture: Pixels) -> list[Box]:
    text = StandingText()
    text.add(picture)
    return text.boxes()


def planted(
    image: Pixels, name: str, font: str, height: int, contrast: int, rng: np.random.Generator
):
    """A copy with a name at a random place, and where: None where it does not fit."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    letters = ImageFont.truetype(
        str(folder / font), round(height / 0.73)
    )  # capitals are 0.73 em high
    left, top, right, bottom = letters.getbbox(name)
    rows, columns = image.shape
    if right - left > columns - 20:
        return None
    x = int(rng.integers(10, columns - (right - left) - 5))
    y = int(rng.integers(rows // 4, rows - (bottom - top) - 10))
    box = (y, x, y + bottom - top, x + right - left)
    level = min(255, int(image[box[0] : box[2], box[1] : box[3]].mean()) + contrast)
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text((x - left, y - top), name, fill=level, font=letters)
    return np.asarray(picture, np.uint8), box


def covered(box: Box, found: list[Box]) -> float:
    area = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    for top, left, bottom, right in found:
        area[
            max(0, top - box[0]) : max(0, bottom - box[0]),
            max(0, left - box[1]) : max(0, right - box[1]),
        ] = True
    return float(area.mean())


def recall(images: list[Pixels], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Height -> contrast -> [share of names found, mean share of a found name's box that is masked, names planted]."""
    rng = np.random.default_rng(0)
    table: dict[str, dict[str, list[float]]] = {}
    for height in HEIGHTS:
        for contrast in CONTRASTS:
            shares = []
            for _ in range(repeats):
                image = images[int(rng.integers(len(images)))]
                made = planted(
                    image, str(rng.choice(NAMES)), str(rng.choice(FONTS)), height, contrast, rng
                )
                if made is not None:
                    shares.append(covered(made[1], boxes(made[0])))
            found = [share for share in shares if share > 0.3]
            cell = [len(found) / len(shares), float(np.mean(found)) if found else 0.0, len(shares)]
            table.setdefault(str(height), {})[str(contrast)] = [round(value, 3) for value in cell]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busbra", type=Path, required=True)
    parser.add_argument("--fallmud", type=Path)
    parser.add_argument("--repeats", type=int, default=12)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = sorted((arguments.busbra / "Images").glob("*.png"))
    images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files[::23]]
    boxes(images[0])  # loads the models
    start = time.process_time()
    flagged = [bool(boxes(image)) for image in images]
    cost = (time.process_time() - start) / len(images)
    result = {
        "ms_per_image": round(1000 * cost, 1),
        "megapixels_per_image": round(float(np.mean([image.size for image in images])) / 1e6, 3),
        "known": {
            n: len(boxes(read_picture(arguments.busbra / "Images" / f"{n}.png"))) for n in KNOWN
        },
        "busbra_with_text": [sum(flagged), len(flagged)],
        "recall": recall(images, arguments.repeats),
    }
    if arguments.fallmud:
        muscle = sorted(arguments.fallmud.rglob("images/*"))[::20]
        result["fallmud_with_text"] = [
            sum(bool(boxes(read_picture(file))) for file in muscle),
            len(muscle),
        ]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
