"""Phantoms in the layout of a site's own export, to try the loop without a hospital; see `pi

Every image is marked synthetic, and the source's name says so too, which the rules of the corpus
ask for.
"""

from pathlib import Path

from arl.corpus.record import Input
from arl.ingest.readers import picture_table
from arl.ingest.source import Source


def read(root: Path, site: str = "site") -> list[Input]:
    """One input for each row of pictures.csv, and for each file it does not name.

    Raises:
        FileNotFoundError, ValueError: see `picture_table.read`.
    """
    return picture_table.inputs(root, site, synthetic=True)


SOURCE = Source(
    name="phantom-table",
    title=(
        "Phantoms in the layout of a site's own export, to try the loop without a hospital; "
        "see `picture_table`."
    ),
    read=lambda root, options, dicom: read(root, options.site or "site"),
    options=("site",),
    published=False,
    licence="Synthetic: made by this software",
    citation="ARL phantoms (arl.phantoms)",
    obtain="Made by this software, in the layout of picture-table",
    layout="As `picture_table`.",
    keys="As `picture_table`.",
    coding="As `picture_table`, all of it synthetic.",
    patient="As `picture_table`.",
    split="As `picture_table`.",
    refuses="As `picture_table`.",
)
