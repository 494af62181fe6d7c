"""FALLMUD: lower leg muscle with fascicle masks."""

from functools import partial
from pathlib import Path

from arl.corpus.pixels import as_grey
from arl.corpus.record import Entry, Input, Record
from arl.ingest.folders import refuse_all
from arl.ingest.pictures import read_mask, read_picture
from arl.ingest.source import Source, without_options

_PARTS = ("NeilCronin", "RyanCunningham")
# JPEG masks ring around their edges.
_WHITE = 100


def read(root: Path) -> list[Input]:
    """One input for each image, and for each fascicle mask without one.

    Raises:
        FileNotFoundError: neither part has a folder of images.
    """
    parts = [root / part for part in _PARTS if (root / part / "images").is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"{root} holds neither {' nor '.join(f'{part}/images' for part in _PARTS)}"
        )
    return [item for part in parts for item in _inputs(root, part)]


def _inputs(root: Path, part: Path) -> list[Input]:
    images = sorted((part / "images").iterdir())
    masks = {file.stem: file for file in sorted((part / "fascicle_masks").glob("*"))}
    paired = [
        Input(
            file.relative_to(root).as_posix(),
            partial(_records, part.name, file, masks.get(file.stem)),
        )
        for file in images
    ]
    stems = {file.stem for file in images}
    lone = [file for stem, file in masks.items() if stem not in stems]
    return paired + refuse_all(root, lone, "images holds nothing of this name")


def _records(part: str, file: Path, mask: Path | None) -> list[Record]:
    # The only colours of these files are the screen's frame and JPEG noise.
    image = as_grey(read_picture(file))
    entry = Entry(
        key=f"{part}/{file.stem}",
        anatomy="muscle",
        probe="linear",
        mask_name=None if mask is None else "fascicle",
    )
    return [Record(image, entry, None if mask is None else read_mask(mask, image, _WHITE))]


SOURCE = Source(
    name="fallmud",
    title="FALLMUD: lower leg muscle with fascicle masks.",
    read=without_options(read),
    licence=("Not stated by the download; NeilCronin also under Apache-2.0 (DL_Track repository)"),
    citation=(
        "H. Michard, B. Luvison, Q.-C. Pham, A. J. Morales-Artacho, G. Guilhem, AW-Net: "
        "Automatic muscle structure analysis on B-mode ultrasound images for injury "
        "prevention, ACM BCB 2021; images by N. Cronin and R. Cunningham"
    ),
    obtain="https://kalisteo.cea.fr: FALLMUD, on request",
    layout=(
        "<root>/{NeilCronin,RyanCunningham}/{images,fascicle_masks}/<stem>.{tif,jpg}; one "
        "of the two parts is enough. Masks are matched by stem, whatever their suffix."
    ),
    keys="<part>/<stem>",
    coding=(
        "Images are B-mode and become grey: their only colours are the screen's frame and "
        'JPEG noise; mask "fascicle" = levels >= 100 (JPEG masks ring around their edges). '
        "Aponeurosis masks are not read: those of RyanCunningham are rotated by 90 degrees, "
        "which cannot be seen where they are square."
    ),
    patient=("Not published, and clips are not either. A split by patient cannot be claimed."),
    split="No official split.",
    refuses=(
        "Damaged images or masks, masks without an image, and masks of another size or "
        "empty. An image without a mask is accepted without one."
    ),
)
