"""The config.json of a model folder."""

from pathlib import Path

import pytest

from arl.files import write_json
from arl.model_config import EncoderConfig, TaskHead, TaskModelConfig, read_config

ENCODER = EncoderConfig(32, {"img_size": 32, "embed_dim": 12})
TASK = TaskModelConfig(
    32, {"img_size": 32}, "lv", TaskHead("segmentation", [], "cardiac", "lv"), upernet_channels=8
)


@pytest.mark.parametrize("config", [ENCODER, TASK])
def test_a_config_is_read_as_it_was_written(config: EncoderConfig, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", config.to_json() | {"library": "arl"})
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "version 7, this release reads 1"),
        ({"kind": "head"}, "'head'"),
        ({"task": {"kind": "segmentation"}}, "classes"),
    ],
)
def test_another_file_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", TASK.to_json() | change)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)
