from pathlib import Path

import pytest
import yaml

from arl import params

ROOT = Path(__file__).parent.parent
FILE = ROOT / "params.yaml"


def changed(tmp_path: Path, text: str, by: str) -> Path:
    source = FILE.read_text(encoding="utf-8")
    assert text in source
    file = tmp_path / "params.yaml"
    file.write_text(source.replace(text, by, 1), encoding="utf-8")
    return file


def test_file_is_literal() -> None:
    assert "${" not in FILE.read_text(encoding="utf-8")
    assert params.to_literals(params.load([], FILE)) == yaml.safe_load(
        FILE.read_text(encoding="utf-8")
    )


def test_overrides_are_typed_and_nested() -> None:
    loaded = params.load(
        [
            "pretrain.epochs=3",
            "pretrain.base_lr=1",
            "tasks=[lung]",
            "objective.mim=false",
            "task.lung.margin=0.2",
        ],
        FILE,
    )
    assert loaded.pretrain.epochs == 3
    assert loaded.pretrain.base_lr == 1.0
    assert isinstance(loaded.pretrain.base_lr, float)
    assert loaded.tasks == ["lung"]
    assert loaded.objective.mim is False
    assert loaded.task["lung"].margin == 0.2
    assert loaded.task["breast"].margin != 0.2


def test_sources_with_dashes_may_be_overridden() -> None:
    assert params.load(
        ["data.splits={bus-bra: fold-2}", "data.sources=[bus-bra]"], FILE
    ).data.splits == {"bus-bra": "fold-2"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretrain.epoch=3", "'pretrain.epoch=3'.*epoch"),
        ("pretrian.epochs=3", "'pretrian.epochs=3'.*pretrian"),
        ("pretrain.epochs=many", "'pretrain.epochs=many'.*Integer"),
        ("pretrain.epochs=1.5", "'pretrain.epochs=1.5'.*Integer"),
        ("pretrain.epochs=", "'pretrain.epochs='.*not Optional"),
        ("objective.mim=maybe", "'objective.mim=maybe'.*bool"),
        ("tasks=breast", "tasks"),
        ("tasks=[spleen]", "spleen"),
        ("tasks=[lung, lung]", "twice"),
        ("task.breast.margins=1", "margins"),
        ("seed", "seed.*not key=value"),
        ("pretrain.epochs=[", r"'pretrain.epochs=\['"),
    ],
)
def test_wrong_override_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        params.load([override], FILE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "by", "message"),
    [
        ("seed: 0\n", "", "params.yaml.*seed"),
        ("  depth: 6\n", "", "params.yaml.*depth"),
        ("seed: 0\n", "seed: 0\nsead: 1\n", "params.yaml.*sead"),
        ("  depth: 6\n", "  depth: deep\n", "params.yaml.*depth"),
        ("  depth: 6\n", "  depth: null\n", "params.yaml.*depth"),
        ("seed: 0\n", "seed: [\n", "params.yaml"),
    ],
)
def test_wrong_file_is_named_in_one_line(tmp_path: Path, text: str, by: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        params.load([], changed(tmp_path, text, by))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a list\n", "just words\n"])
def test_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"params\.yaml"):
        params.load([], tmp_path / "params.yaml")


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="arl configure"):
        params.load([], tmp_path / "params.yaml")


LEAK = ["data.pretrain_on_tasks=false", "tasks=[breast]", "task.breast.sources=[busi]"]


def test_pretraining_may_not_see_what_a_task_is_judged_on() -> None:
    with pytest.raises(
        ValueError, match=r"pretraining would see busi, on which task breast is judged: put it into"
    ):
        params.load(LEAK, FILE)
    with pytest.raises(ValueError, match="pretraining would see busi"):
        params.load([*LEAK, "data.sources=[bus-bra,busi]"], FILE)
    params.load([*LEAK, "data.held_out=[busi]"], FILE)
    params.load([*LEAK, "data.sources=[bus-bra]"], FILE)
    params.load([*LEAK, "data.pretrain_on_tasks=true"], FILE)
    params.load([*LEAK, "tasks=[lung]"], FILE)  # the task does not run
