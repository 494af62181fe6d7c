import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from arl import cli, params
from arl.commands.configure import render
from arl.composition import compose

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


def choices_of(text: str) -> list[str]:
    """The choices that the header of a params.yaml names."""
    command = re.match(r"# Written by `(arl configure.*?)` from", text)
    assert command, "params.yaml lacks its header: write it with `arl configure`"
    return shlex.split(command[1])[2:]


def test_params_file_is_what_conf_gives() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    choices = choices_of(text)
    assert text == render(compose(choices, CONF), choices), (
        f"run `arl configure {shlex.join(choices)}`"
    )


def test_laptop_is_the_default() -> None:
    assert compose([], CONF) == compose(["experiment=laptop"], CONF)


@pytest.mark.parametrize(
    "file",
    sorted(set(CONF.glob("*/*.yaml")) - set(CONF.glob("paper/*.yaml"))),
    ids=lambda file: f"{file.parent.name}={file.stem}",
)
def test_every_file_of_conf_fits_the_schema(file: Path) -> None:
    group = file.parent.name
    choices = {
        "task": [],
        # its image size is no multiple of the default model's patch
        "data": [f"data={file.stem}", "model.patch_size=8"],
    }
    composed = compose(choices.get(group, [f"{group}={file.stem}"]), CONF)
    if group == "experiment":
        assert composed.experiment == file.stem
    if group == "task":
        # a task that no default names is defined nowhere
        assert file.stem in composed.task


def test_a_choice_overrides_the_experiment() -> None:
    composed = compose(["experiment=paper", "model=avit_small", "pretrain.epochs=7"], CONF)
    assert (composed.experiment, composed.model.embed_dim, composed.pretrain.epochs) == (
        "paper",
        384,
        7,
    )
    assert composed.data.size == 224


def test_the_command_writes_what_load_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main(["configure", "experiment=busbra", "seed=5", "data.splits={bus-bra: fold-2}"]) == 0
    )
    text = Path("params.yaml").read_text(encoding="utf-8")
    loaded = params.load([])
    assert (loaded.seed, loaded.experiment, loaded.data.splits["bus-bra"]) == (
        5,
        "busbra",
        "fold-2",
    )
    assert list(yaml.safe_load(text)) == list(params.Params.__dataclass_fields__)
    assert choices_of(text) == ["experiment=busbra", "seed=5", "data.splits={bus-bra: fold-2}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "params.yaml"], (
        "Hydra left something"
    )


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("experiment=hospital", "experiment/hospital"),
        ("modle=avit_small", "modle"),
        ("pretrain.epoch=1", "pretrain.epoch"),
        ("+pretrain.epoch=1", "pretrain.epoch is not a parameter"),
        ("pretrain.epochs=many", "whole number"),
        ("model.depth=null", "depth"),
        ("tasks=[spleen]", "spleen"),
        ("laptop", "laptop"),
        ("data.splits={bus-bra", "bus-bra"),
    ],
)
def test_wrong_choice_is_one_sentence_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    choice: str,
    message: str,
) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["configure", choice]) == 1
    error = capsys.readouterr().err
    assert error.startswith("arl configure: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("params.yaml").exists()


def test_outside_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["configure"]) == 1
    assert "conf/config.yaml does not exist" in capsys.readouterr().err


def test_an_experiment_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "experiment" / "new.yaml").write_text(
        "# @package _global_\nexperiment: new\npretrain: {epoch: 3}\n"
    )
    with pytest.raises(ValueError, match="epoch is not a parameter"):
        compose(["experiment=new"], conf)
