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
            "objective.adversarial=false",
            "task.lung.margin=0.2",
        ],
        FILE,
    )
    assert loaded.pretrain.epochs == 3
    assert loaded.pretrain.base_lr == 1.0
    assert isinstance(loaded.pretrain.base_lr, float)
    assert loaded.tasks == ["lung"]
    assert loaded.objective.adversarial is False
    assert loaded.task["lung"].margin == 0.2
    assert loaded.task["breast"].margin != 0.2


def test_sources_with_dashes_may_be_overridden() -> None:
    assert params.load(
        ["data.splits={bus-bra: fold-2}", "data.sources=[bus-bra]"], FILE
    ).data.splits == {"bus-bra": "fold-2"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretrain.epoch=3", "pretrain.epoch is not a parameter .did you mean 'epochs'"),
        ("pretrian.epochs=3", "pretrian is not a parameter .did you mean 'pretrain'"),
        ("pretrain.epochs=many", "pretrain.epochs is 'many': it must be a whole number"),
        ("pretrain.epochs=1.5", "pretrain.epochs is 1.5: it must be a whole number"),
        ("pretrain.epochs=", "pretrain.epochs is null"),
        ("objective.mim=maybe", "objective.mim is 'maybe': it must be true or false"),
        ("tasks=breast", "tasks is 'breast': it must be a list"),
        ("tasks=[spleen]", "spleen"),
        ("tasks=[lung, lung]", "twice"),
        ("task.breast.margins=1", "task.breast.margins is not a parameter .did you mean 'margin'"),
        ("task.breast.kind=regression", "choose one of classification, segmentation"),
        ("task.breast.anatomy=tyroid", "did you mean 'thyroid'"),
        ("task.breast.classes=[no, yes]", "task.breast.classes.0. is false: it must be text"),
        ("task.breast.classes=[benign]", "two different"),
        ("task.breast.classes=[a, b, a]", "twice"),
        ("task.lv.mask=''", "mask is empty"),
        ("pretrain.epochs=-1", "pretrain.epochs is -1: it must be at least 1"),
        ("pretrain.epochs=true", "pretrain.epochs is true: it must be a whole number"),
        ("pretrain.epochs.x=1", "pretrain.epochs"),
        ("pretrain.base_lr=.nan", "finite"),
        ("pretrain.precision=fp61", "choose one of fp32, bf16"),
        ("pretrain.fraction=0", "greater than 0"),
        ("gate.alpha=1", "less than 1"),
        ("data.size=100", "not a multiple of model.patch_size"),
        ("model.num_heads=3", "not divisible by num_heads 3"),
        ("objective.mim=false", "adversarial needs mim"),
        ("objective.global_crops_scale=[0.5]", "smallest and the largest"),
        ("data.thinning={default: {every: 0}}", "data.thinning.default.every is 0"),
        ("data.thinning={default: {distance: 65}}", "at most 64"),
        ("dicom.image_types={TTE: hart}", "did you mean"),
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
        ValueError, match=r"pretraining would read busi, which evaluates task breast: put it into"
    ):
        params.load(LEAK, FILE)
    with pytest.raises(ValueError, match="pretraining would read busi"):
        params.load([*LEAK, "data.sources=[bus-bra,busi]"], FILE)
    params.load([*LEAK, "data.held_out=[busi]"], FILE)
    params.load([*LEAK, "data.sources=[bus-bra]"], FILE)
    params.load([*LEAK, "data.pretrain_on_tasks=true"], FILE)
    params.load([*LEAK, "tasks=[lung]"], FILE)  # the task does not run
