"""A table of images, for pages."""

import pandas as pd
from markupsafe import Markup

from arl.reports import html


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
            html.badge("synthetic") if part["synthetic"].all() else "real",
        ]
        for key, part in rows.groupby(keys, sort=True)
    ]
    return html.table(columns, cells)
