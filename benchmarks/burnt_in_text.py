"""Text and codes burnt into ultrasound: recall by script, false alarms, and cost.

    apt-get install fonts-noto-core fonts-noto-cjk
    python benchmarks/burnt_in_text.py --data DATA [--names 200] [--clips 200] [--cards 50]

DATA holds BUSBRA, FALLMUD and COVID-BLUES. The script plants names of ten scripts into scans that
`train_overlay_network.py` does not see (even patients of BUS-BRA, the other half of FALLMUD), at 12
to 26 pixels and a contrast of 60 grey levels or more. It plants names into one frame or more of
clips, standing, moving or flashing, and makes title cards and slide shows. The false alarms are
counted on the images of `burnt_in_text_clean.txt`, which a person has found free of text, and on
clips of COVID-BLUES. Prints one JSON line per measurement. With `--out` the lines are kept, a
second run skips what the file holds, and the pictures with a missed name are saved beside it.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from arl.corpus.record import Pixels
from arl.ingest.dicom.boxes import Box
from arl.ingest.dicom.burnt_in_text import TextBoxes, TextSearch
from arl.ingest.dicom.overlays import find_overlays

CLEAN = Path(__file__).with_name("burnt_in_text_clean.txt")
NOTO = Path("/usr/share/fonts/truetype/noto")
CJK = Path("/usr/share/fonts/opentype/noto")
FALLMUD_IMAGES = "FALLMUD/NeilCronin/images"
LATIN = ("NotoSans-Regular", "NotoSans-Bold", "NotoSerif-Regular", "NotoSerif-Bold")
# script -> names, fonts
SCRIPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Latin": (
        ("NIGHTINGALE F", "Mueller, Anna", "GARCIA^MARIA", "Dr. Okafor", "MRN 4711208",
         "12.05.1960", "Li Wei", "St Mary", "Óscar Peña", "Nguyễn Thị Hoa"),
        LATIN,
    ),
    "Hangul": (
        ("김민수", "이서연", "박지훈", "최유진", "정하은", "강도윤", "남궁민", "윤서"),
        ("NotoSansCJK-Regular", "NotoSerifCJK-Regular"),
    ),
    "Chinese": (
        ("王小明", "李伟", "张秀英", "欧阳娜娜", "陈建国", "刘洋", "黃美玲"),
        ("NotoSansCJK-Regular", "NotoSerifCJK-Regular"),
    ),
    "Japanese": (
        ("山田太郎", "さとう はなこ", "鈴木一郎", "タナカ ケン", "高橋美咲", "林健"),
        ("NotoSansCJK-Bold", "NotoSerifCJK-Regular"),
    ),
    "Cyrillic": (
        ("Иванов Сергей", "Петрова А.", "КУЗНЕЦОВ", "Смирнова Ольга", "Шевченко", "Йорданов"),
        LATIN,
    ),
    "Greek": (
        ("Παπαδόπουλος", "Ελένη Γ.", "ΝΙΚΟΛΑΟΥ", "Δημήτρης", "Κωνσταντίνα", "Ζωή"),
        LATIN,
    ),
    "Arabic": (
        ("محمد أحمد", "فاطمة الزهراء", "عبد الله", "خديجة", "يوسف حسن", "نور"),
        ("NotoSansArabic-Regular", "NotoNaskhArabic-Regular", "NotoKufiArabic-Regular"),
    ),
    "Hebrew": (
        ("משה כהן", "שרה לוי", "אברהם מזרחי", "יעל", "דוד פרץ"),
        ("NotoSansHebrew-Regular", "NotoSerifHebrew-Regular", "NotoSerifHebrew-Bold"),
    ),
    "Devanagari": (
        ("राम कुमार", "सीता देवी", "अमित शर्मा", "प्रिया सिंह", "मोहन"),
        ("NotoSansDevanagari-Regular", "NotoSerifDevanagari-Regular"),
    ),
    "Thai": (
        ("สมชาย ใจดี", "มาลี", "สุดา แก้วใส", "ประเสริฐ", "วิชัย"),
        ("NotoSansThai-Regular", "NotoSerifThai-Regular", "NotoLoopedThai-Regular"),
    ),
}  # fmt: skip
CONTRASTS = (60, 60, 80, 110, 150)


def font_file(name: str) -> Path:
    return CJK / f"{name}.ttc" if "CJK" in name else NOTO / f"{name}.ttf"


def name_ink(rng: np.random.Generator, script: str = "") -> Pixels:
    """A random name as coverage of pixels, 0 to 255; capitals are 12 to 26 pixels high."""
    names, fonts = SCRIPTS[script or str(rng.choice(list(SCRIPTS)))]
    size = round(int(rng.integers(12, 27)) / 0.72)
    font = ImageFont.truetype(str(font_file(str(rng.choice(fonts)))), size)
    text = str(rng.choice(names))
    left, top, right, bottom = font.getbbox(text)
    layer = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(layer).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(layer, np.uint8)


def plant(scan: Pixels, ink: Pixels, top: int, left: int, contrast: int) -> tuple[Pixels, Box]:
    """A copy of a grey scan with the ink at a position, and its box."""
    height, width = ink.shape
    window = np.s_[top : top + height, left : left + width]
    behind = float(scan[window].mean())
    level = behind + contrast if behind + contrast <= 255 else behind - contrast
    planted = scan.copy()
    cover = ink.astype(np.float32) / 255
    planted[window] = (scan[window] * (1 - cover) + level * cover).round().clip(0, 255)
    return planted, (top, left, top + height, left + width)


def position(rng: np.random.Generator, scan: Pixels, ink: Pixels) -> tuple[int, int] | None:
    rows, columns = scan.shape[0] - ink.shape[0] - 4, scan.shape[1] - ink.shape[1] - 4
    if rows < 2 or columns < 2:
        return None
    return int(rng.integers(2, rows)), int(rng.integers(2, columns))


def clean_images(data: Path) -> tuple[list[str], list[Pixels]]:
    """Names and grey pixels of the list; "file@19" is the frame after 19 others of a video."""
    names = CLEAN.read_text(encoding="utf-8").split()
    images = []
    for name in names:
        file, _, frame = name.partition("@")
        if not frame:
            images.append(cv2.imread(str(data / file), cv2.IMREAD_GRAYSCALE))
            continue
        capture = cv2.VideoCapture(str(data / file))
        for _ in range(int(frame) + 1):
            read, picture = capture.read()
            if read:
                last = picture
        images.append(cv2.cvtColor(last, cv2.COLOR_BGR2GRAY))
    return names, images


def search(frames: list[Pixels]) -> TextBoxes:
    text = TextSearch()
    for frame in frames:
        text.add(frame)
    return text.result()


def covered(box: Box, boxes: tuple[Box, ...]) -> float:
    """Fraction of a box that the boxes cover."""
    area = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    for top, left, bottom, right in boxes:
        area[
            max(0, top - box[0]) : max(0, bottom - box[0]),
            max(0, left - box[1]) : max(0, right - box[1]),
        ] = True
    return float(area.mean())


def stills(
    scans: list[Pixels], script: str, count: int, seed: int, misses: Path | None = None
) -> dict[str, object]:
    """Recall of one script; a name counts if 80 % of its box are masked."""
    rng = np.random.default_rng([seed, len(script), ord(script[0])])
    fractions: list[float] = []
    while len(fractions) < count:
        scan, ink = scans[int(rng.integers(len(scans)))], name_ink(rng, script)
        corner = position(rng, scan, ink)
        if corner is None:
            continue
        planted, box = plant(scan, ink, *corner, int(rng.choice(CONTRASTS)))
        fractions.append(covered(box, search([planted]).boxes))
        if fractions[-1] < 0.8 and misses is not None:
            misses.mkdir(parents=True, exist_ok=True)
            name = f"{script}-{len(fractions)}-{'-'.join(map(str, box))}.png"
            cv2.imwrite(str(misses / name), planted)
    masked = [fraction for fraction in fractions if fraction >= 0.8]
    return {
        "names": count,
        "masked": len(masked),
        "touched": sum(fraction > 0 for fraction in fractions),
        "masked_area_of_masked": round(float(np.mean(masked)), 3) if masked else 0.0,
    }


def moving_clip(scans: list[Pixels], rng: np.random.Generator, length: int) -> list[Pixels]:
    """A clip made of one scan that drifts, with fresh noise in each frame."""
    scan = scans[int(rng.integers(len(scans)))]
    padded = np.pad(scan, ((3, 3), (0, 0)), mode="edge").astype(np.float32)
    frames = []
    for number in range(length):
        top = 3 + round(3 * np.sin(number / 5))
        noise = rng.normal(0, 3, scan.shape)
        moved = padded[top : top + len(scan)]
        frames.append((moved + noise).clip(0, 255).astype(np.uint8))
    return frames


def clips(scans: list[Pixels], count: int) -> dict[str, object]:
    """Names that stand, move or flash for one frame or more, anywhere in a clip."""
    rng = np.random.default_rng(11)
    found, kinds = 0, {"standing": [0, 0], "moving": [0, 0], "flashing": [0, 0]}
    for number in range(count):
        kind = list(kinds)[number % 3]
        length = int(rng.integers(2, 60))
        frames, ink = moving_clip(scans, rng, length), name_ink(rng)
        place = position(rng, frames[0], ink)
        while place is None:
            frames, ink = moving_clip(scans, rng, length), name_ink(rng)
            place = position(rng, frames[0], ink)
        first = int(rng.integers(length))
        visible = range(first, min(length, first + int(rng.integers(1, 12))))
        contrast, boxes = int(rng.choice(CONTRASTS)), []
        for k in visible:
            if kind == "flashing" and (k - first) % 2:
                continue
            left = place[1]
            if kind == "moving":
                left = 2 + (left + 9 * (k - first)) % (frames[k].shape[1] - ink.shape[1] - 4)
            frames[k], box = plant(frames[k], ink, place[0], left, contrast)
            boxes.append((k, box))
        text = search(frames)
        hit = all(k in text.cards or covered(box, text.boxes) >= 0.8 for k, box in boxes)
        kinds[kind][0] += hit
        kinds[kind][1] += 1
        found += hit
    return {"clips": count, "found": found, **kinds}


def cards(scans: list[Pixels], count: int) -> dict[str, object]:
    """Title cards before a clip, and slide shows: every line of text is masked or dropped."""
    rng, found = np.random.default_rng(13), 0
    for number in range(count):
        frames = moving_clip(scans, rng, int(rng.integers(4, 20)))
        slides = len(frames) if number % 2 else 1
        lines: list[tuple[int, Box]] = []
        for k in range(slides):
            frames[k] = np.full_like(frames[k], int(rng.choice([0, 0, 30, 128, 255])))
            top = 6
            while top + 46 < frames[k].shape[0]:
                ink = name_ink(rng)
                if ink.shape[1] + 12 < frames[k].shape[1] and rng.random() < 0.7:
                    frames[k], box = plant(frames[k], ink, top, 6, int(rng.choice([90, 120, 127])))
                    lines.append((k, box))
                top += 46
        text = search(frames)
        found += all(k in text.cards or covered(box, text.boxes) >= 0.8 for k, box in lines)
    return {"cards": count, "found": found}


def false_alarms(names: list[str], images: list[Pixels]) -> dict[str, object]:
    """Images without text in which something is masked."""
    search(images[:1])  # loads the models
    start = time.process_time()
    flagged = [name for name, image in zip(names, images, strict=True) if search([image])]
    seconds = (time.process_time() - start) / len(images)
    return {
        "clean_images": len(images),
        "masked": len(flagged),
        "cpu_seconds_per_still": round(seconds, 3),
        "megapixels_per_still": round(float(np.mean([image.size for image in images])) / 1e6, 3),
        "flagged": flagged,
    }


def false_alarms_of_clips(data: Path, count: int) -> dict[str, object]:
    """Clips of COVID-BLUES, one per patient, in which something is masked or dropped."""
    files = sorted((data / "COVID-BLUES/lus_videos").glob("*.mp4"))
    files = files[:: max(1, len(files) // count)][:count]
    flagged, frames, seconds, cheap = [], 0, 0.0, 0.0
    for file in files:
        capture, clip = cv2.VideoCapture(str(file)), []
        while len(clip) < 100:
            read, frame = capture.read()
            if not read:
                break
            clip.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
        start = time.process_time()
        text = search(clip)
        seconds += time.process_time() - start
        start = time.process_time()
        find_overlays(clip[0])
        cheap += time.process_time() - start
        frames += len(clip)
        if text:
            flagged.append(file.name)
    return {
        "clean_clips": len(files),
        "masked": len(flagged),
        "cpu_seconds_per_100_frames": round(100 * seconds / frames, 2),
        "cpu_seconds_of_overlay_test_per_100_frames": round(100 * cheap / len(files), 2),
        "flagged": flagged,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--names", type=int, default=200)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--cards", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7, help="of the names and their positions")
    parser.add_argument("--only", nargs="*", help="scripts, or clips, cards, images, videos")
    parser.add_argument("--out", type=Path, help="file of JSON lines; measured parts are skipped")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    names, scans = clean_images(arguments.data)
    misses = arguments.out.with_suffix("") if arguments.out else None
    parts: dict[str, Callable[[], dict[str, object]]] = {
        script: partial(stills, scans, script, arguments.names, arguments.seed, misses)
        for script in SCRIPTS
    }
    parts["clips"] = lambda: clips(scans, arguments.clips)
    parts["cards"] = lambda: cards(scans, arguments.cards)
    parts["images"] = lambda: false_alarms(names, scans)
    parts["videos"] = lambda: false_alarms_of_clips(arguments.data, 60)
    measured = set()
    if arguments.out and arguments.out.exists():
        measured = {json.loads(line)["part"] for line in arguments.out.read_text().splitlines()}
    for part in arguments.only or parts:
        if part in measured:
            continue
        line = json.dumps({"benchmark": "burnt_in_text", "part": part, **parts[part]()})
        print(line, flush=True)
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
