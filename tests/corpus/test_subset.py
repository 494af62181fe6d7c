import pandas as pd
import pytest

from arl.corpus.selection import subset


def rows() -> pd.DataFrame:
    """Three images of each of 97 patients: 60 benign, 37 malignant."""
    patients = [f"p{number}" for number in range(97) for _ in range(3)]
    labels = ["benign" if int(name[1:]) < 60 else "malignant" for name in patients]
    ids = [f"{name}-{place}" for place, name in enumerate(patients)]
    return pd.DataFrame({"id": ids, "patient": patients, "clip": None, "label": labels})


def test_subsets_are_nested_by_patient_and_keep_the_shares_of_the_labels() -> None:
    whole = rows()
    before: set[str] = set()
    for share in (0.01, 0.05, 0.1, 0.25, 0.5, 1.0):
        part = subset(whole, share, seed=3)
        patients = part.groupby("label")["patient"].nunique()
        assert patients.to_dict() == {
            "benign": max(1, round(60 * share)),
            "malignant": max(1, round(37 * share)),
        }
        assert (part.groupby("patient").size() == 3).all()
        assert before <= set(part["patient"])
        before = set(part["patient"])
    assert len(part) == len(whole)


def test_the_seed_decides_which() -> None:
    chosen = [set(subset(rows(), 0.1, seed)["patient"]) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_images_without_labels_or_patients_count_alone() -> None:
    whole = rows().assign(patient=None, label=None)
    assert len(subset(whole, 0.1, 0)) == 29


def test_a_patient_with_two_labels_counts_once() -> None:
    whole = rows()
    whole.loc[0, "label"] = "malignant"
    assert subset(whole, 0.5, 0)["patient"].nunique() == 30 + 18


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="is not in"):
        subset(rows(), share, 0)
