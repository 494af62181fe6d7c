"""Kubernetes quantities, as 500m, 16Gi or 2."""

import re

# suffixes of k8s.io/apimachinery/pkg/api/resource; exponents as 1e3 are left out
_FACTORS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
}


def parse_quantity(text: str | float) -> float:
    """The value of a quantity in cores, bytes or pieces.

    Raises:
        ValueError: the text is no quantity.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", str(text))
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"{text!r} is no Kubernetes quantity, e.g. 500m, 16Gi or 2")
    return float(match[1]) * _FACTORS[match[2]]
