"""A table of images, for pages."""

import pandas as pd
from markupsafe import Markup

from arl import pages


def counts(rows: pd.DataFrame, keys: list[str]) -> Markup:
    """Images, patients and labels of each combination of the keys."""
    columns = [*keys, "images", "patients", "labelled", "with mask", "data"]
    cells = [
        [
            *key,
            len(part),
            part["patient"].nunique(),
            int(part["label"].notna().sum()),
            int(part["mask"].notna().sum()),
            pages.badge("synthetic") if part["synthetic"].all() else "real",
        ]
        for key, part in rows.groupby(keys, sort=True)
    ]
    return pages.table(columns, cells)
