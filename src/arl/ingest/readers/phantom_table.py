"""Phantoms in the layout of a site's own export, to try the loop without a hospital; see `picture_table`.

Every image is marked synthetic, and the source's name says so too, which the rules of the corpus
ask for.

Layout      as `picture_table`
Keys        as `picture_table`
Coding      as `picture_table`, all of it synthetic
Patient     as `picture_table`
Split       as `picture_table`
Licence     synthetic: made by this software
Refuses     as `picture_table`
"""

from pathlib import Path

from arl.corpus.record import Input
from arl.ingest.readers import picture_table

LICENCE, CITATION = "Synthetic: made by this software", "ARL phantoms (arl.phantoms)"
OBTAIN = "Made by this software, in the layout of picture-table"


def read(root: Path, site: str = "site") -> list[Input]:
    """One input for each row of pictures.csv, and for each file it does not name.

    Raises:
        FileNotFoundError, ValueError: see `picture_table.read`.
    """
    return picture_table.inputs(root, site, synthetic=True)
