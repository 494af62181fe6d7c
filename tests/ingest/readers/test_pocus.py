"""POCUS in miniature: videos and pictures, classes by name, patients by table or by case."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from arl.corpus.splits import grouping, read_split
from arl.ingest.readers import pocus

TABLE = "Date added,Filename,Label,License,Type,Probe,Source ID,Patient ID / Name\n"


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (35, 37), dtype=np.uint8))


def gif(file: Path, frames: int) -> None:
    noise = np.random.default_rng(1).integers(0, 120, (36, 41), dtype=np.uint8)
    pictures = [Image.fromarray(noise + np.uint8(20 * number)) for number in range(frames)]
    pictures[0].save(file, save_all=True, append_images=pictures[1:])


@pytest.fixture
def root(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    root = tmp_path / "covid19_ultrasound/data"
    videos, images = root / "pocus_videos", root / "pocus_images"
    make_video(videos / "Convex/Cov-clarius3.mp4", 4, codec="mp4v")
    gif(videos / "Convex/Cov-Atlas-Day+1.gif", 3)
    gif(videos / "Convex/Cov-Atlas-Day+2.gif", 3)
    make_video(videos / "convex/Pneu_liftl_pneu_case3_clip4.mov", 2)
    make_video(videos / "convex/Pneu_liftl_pneu_case3_clip5.MPEG", 5, codec="mpg1")
    make_video(videos / "linear/reg_Avi_lung-sliding.MP4", 3, codec="mp4v")
    picture(images / "convex/Vir_whitelung.png")
    picture(images / "convex/covid/Cov-Atlas-Day+1.gif_frame18.jpg")
    table = TABLE
    for day in (1, 2):
        table += f"20.04.20,Cov-Atlas-Day+{day},COVID-19,CC,video,convex,2,35\n"
    table += "0,Cov-clarius3,COVID-19,None,video,convex,3,nd\n"
    table += "0,Vir_whitelung,Viral pneumonia,None,image,convex,3,7\n"
    table += "0,Reg_Avi_Lung sliding,regular,None,video,linear,3,\n"
    (root / "dataset_metadata.csv").write_text(table)
    return root


def test_classes_probes_and_patients(root: Path, ingest: Callable) -> None:
    done = ingest(pocus, root.parent)
    rows = done.rows.drop_duplicates(["patient", "clip"]).set_index("id")
    found = {
        key.removeprefix("source:"): row
        for key, row in rows[["label", "probe", "patient"]].iterrows()
    }
    assert {key: tuple(row) for key, row in found.items()} == {
        "pocus_images/convex/Vir_whitelung.png": ("viral", "convex", "source:id-7"),
        "pocus_images/convex/covid/Cov-Atlas-Day+1.gif_frame18.jpg": (
            "covid",
            "convex",
            "source:id-35",
        ),
        "pocus_videos/Convex/Cov-Atlas-Day+1.gif/00000": ("covid", "convex", "source:id-35"),
        "pocus_videos/Convex/Cov-Atlas-Day+2.gif/00000": ("covid", "convex", "source:id-35"),
        "pocus_videos/Convex/Cov-clarius3.mp4/00000": (
            "covid",
            "convex",
            "source:case-cov-clarius",
        ),
        "pocus_videos/convex/Pneu_liftl_pneu_case3_clip4.mov/00000": (
            "pneumonia",
            "convex",
            "source:case-pneu_liftl_pneu_case3",
        ),
        "pocus_videos/convex/Pneu_liftl_pneu_case3_clip5.MPEG/00000": (
            "pneumonia",
            "convex",
            "source:case-pneu_liftl_pneu_case3",
        ),
        "pocus_videos/linear/reg_Avi_lung-sliding.MP4/00000": (
            "normal",
            "linear",
            "source:case-reg_avi_lung-sliding",
        ),
    }
    assert len(done.rows) == 4 + 3 + 3 + 2 + 5 + 3 + 2
    assert done.rows["anatomy"].unique().tolist() == ["lung"]
    assert grouping(done.rows) == "patient"
    split = read_split(done.corpus, done.rows, {})
    assert (split.groupby(done.rows["patient"]).nunique() == 1).all()


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("Pneu_liftl_pneu_case3_clip5.mp4", "pneu_liftl_pneu_case3"),
        ("Cov-Atlas-Day+3.gif", "cov-atlas"),
        ("Cov-Atlas+(44).gif", "cov-atlas"),
        ("Pneu_northumbria_0409_set6_vid8.avi", "pneu_northumbria_0409_set6"),
        ("Cov_combatting_Image1.mp4", "cov_combatting"),
        ("Reg_Image_182106_crop.mp4", "reg_image_182106"),
        ("Cov-grep-7510.mp4_frame104.jpg", "cov-grep"),
        ("Reg-bcpocus.gif", "reg-bcpocus"),
    ],
)
def test_the_case_in_a_name(name: str, case: str) -> None:
    assert pocus._case(name) == case


def test_without_the_table_cases_are_the_patients(root: Path, ingest: Callable) -> None:
    (root / "dataset_metadata.csv").unlink()
    patients = ingest(pocus, root).rows["patient"].unique()
    assert {"source:case-cov-atlas", "source:case-pneu_liftl_pneu_case3"} <= set(patients)


def test_unlabelled_videos_have_no_label(
    root: Path, ingest: Callable, make_video: Callable[..., Path]
) -> None:
    make_video(root / "pocus_videos/linear/unlabeled/Butterfly_12.mp4", 2, codec="mp4v")
    rows = ingest(pocus, root).rows
    assert rows[rows["id"].str.contains("Butterfly")]["label"].isna().tolist() == [True, True]


def test_what_is_refused(root: Path, ingest: Callable, make_video: Callable[..., Path]) -> None:
    videos = root / "pocus_videos/convex"
    make_video(videos / "Butterfly_12.mp4", 2, codec="mp4v")
    make_video(videos / "Reg-Vir_whitelung.avi", 2).rename(videos / "Reg_whitelung.avi")
    (videos / "notes.txt").write_text("")
    (videos / "Cov-torn.gif").write_bytes(
        (videos.parent / "Convex/Cov-Atlas-Day+1.gif").read_bytes()[:60]
    )
    with (root / "dataset_metadata.csv").open("a") as table:
        table.write("0,Reg_whitelung,Viral pneumonia,None,image,convex,3,7\n")
    assert ingest(pocus, root).refused == {
        "pocus_videos/convex/Butterfly_12.mp4": "its name begins with none of cov, pne, vir, reg",
        "pocus_videos/convex/Reg_whitelung.avi": "its name says normal, dataset_metadata.csv viral",
        "pocus_videos/convex/Cov-torn.gif": (
            "Cov-torn.gif is not a readable video (UnidentifiedImageError)"
        ),
        "pocus_videos/convex/notes.txt": "it is neither a picture nor a video",
    }


def test_what_is_not_the_layout(root: Path, tmp_path: Path) -> None:
    (root / "dataset_metadata.csv").write_text("Filename,Label\n")
    with pytest.raises(ValueError, match=r"lacks the columns \['Patient ID / Name'\]"):
        pocus.read(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds pocus_images or pocus_videos"):
        pocus.read(tmp_path / "empty")
