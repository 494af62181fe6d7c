"""The paper's anatomy vocabulary (section 3.3, appendix A.1).

The text says 16 classes and lists 17 names; the sixteen named ones are the one-hot code and
*other* is its zero vector, which is also the null condition of an image without a label.
Public sets without a class of their own (fetal head, ovary) are *other*.
"""

ANATOMIES: tuple[str, ...] = (
    "abdominal",
    "aorta",
    "bladder",
    "breast",
    "cardiac",
    "doppler",
    "esophageal",
    "gallbladder",
    "kidney",
    "liver",
    "lung",
    "muscle",
    "oncology",
    "soft_tissue",
    "testicle",
    "thyroid",
)
NUM_ANATOMIES = len(ANATOMIES)
OTHER = "other"
# Index of the zero vector.
NULL_ANATOMY = NUM_ANATOMIES


def anatomy_index(name: str) -> int:
    """Index of an anatomy in the one-hot code; `other` is `NULL_ANATOMY`.

    Raises:
        ValueError: the name is not in the vocabulary.
    """
    if name == OTHER:
        return NULL_ANATOMY
    try:
        return ANATOMIES.index(name)
    except ValueError:
        raise ValueError(
            f"unknown anatomy {name!r}: expected one of {', '.join(ANATOMIES)} or {OTHER}"
        ) from None
