"""Each library does what we need of it: `pip check` passes on combinations that break at the first
use.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BIN = Path(sys.executable).parent


def test_torchvision_operators_come_with_torch() -> None:
    import timm
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 9], [20, 20, 30, 30]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=3)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_deepspeed_trains_on_a_cpu(tmp_path: Path) -> None:
    # in a process of its own, because the process group is global
    program = """
import torch
from arl.training import distributed
distributed.initialize()
torch.manual_seed(0)
model = torch.nn.Linear(3, 1, bias=False)
before = model.weight.detach().clone()
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
engine = distributed.engine(
    model, optimizer, micro_batch_size=2, accumulation=1, clip_grad=0.0, zero_stage=0
)
x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
engine.backward(engine(x).mean())
engine.step()
assert torch.allclose(engine.module.weight, before - 0.5 * x.mean(0)), engine.module.weight
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_hydra_composes_groups(tmp_path: Path) -> None:
    import hydra

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "small.yaml").write_text("depth: 3\n")
    (tmp_path / "config.yaml").write_text("defaults: [{model: small}]\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert hydra.compose("config", overrides=["model.depth=5"]).model.depth == 5


def test_kfp_compiles(tmp_path: Path) -> None:
    from kfp import compiler, dsl, kubernetes

    @dsl.component(base_image="python", packages_to_install=[], install_kfp_package=False)
    def double(number: int) -> int:
        return 2 * number

    @dsl.pipeline
    def twice(number: int) -> int:
        task = double(number=double(number=number).output)
        kubernetes.set_timeout(task, 60)
        return task.output

    compiler.Compiler().compile(twice, str(tmp_path / "twice.yaml"))
    assert "activeDeadlineSeconds" in (tmp_path / "twice.yaml").read_text()


def test_dvc_reproduces_once(tmp_path: Path) -> None:
    def dvc(*words: str) -> str:
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(
            ["dvc", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    dvc("init", "--no-scm", "--quiet")
    (tmp_path / "params.yaml").write_text("tasks: [a, b]\nn: {a: 1, b: 2}\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  make:\n    matrix: {task: '${tasks}'}\n    cmd: echo ${item.task} > "
        "${item.task}.txt\n"
        "    params: ['n.${item.task}']\n    outs: ['${item.task}.txt']\n"
    )
    dvc("repro")
    assert (tmp_path / "b.txt").read_text() == "b\n"
    assert "up to date" in dvc("repro")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_great_expectations_checks_a_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails under marshmallow 4 with: Object of type bool is not JSON serializable."""
    monkeypatch.setenv("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    batch = (
        context.data_sources.add_pandas("frames")
        .add_dataframe_asset("manifest")
        .add_batch_definition_whole_dataframe("all")
    )
    ranges = {"quantiles": [0.5], "value_ranges": [[40, 60]]}
    expectation = gx.expectations.ExpectColumnQuantileValuesToBeBetween(
        column="mean", quantile_ranges=ranges
    )
    suite = context.suites.add(gx.ExpectationSuite(name="levels", expectations=[expectation]))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="run", data=batch, suite=suite)
    )

    def passes(shift: float) -> bool:
        frame = pd.DataFrame({"mean": np.linspace(0, 100, 101) + shift})
        return bool(definition.run(batch_parameters={"dataframe": frame}).success)

    assert passes(0)
    assert not passes(30)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_evidently_sees_a_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails under pandas 3.1, of which evidently imports a symbol that is gone."""
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    from evidently import Report
    from evidently.presets import DataDriftPreset

    rng = np.random.default_rng(0)
    reference = pd.DataFrame({"mean": rng.normal(0, 1, 200)})

    def drifted(current: pd.DataFrame) -> float:
        result = Report([DataDriftPreset()]).run(current, reference).dict()
        return float(result["metrics"][0]["value"]["share"])

    assert drifted(reference + 2) == 1.0
    assert drifted(reference) == 0.0


def test_minio_signs_without_a_network() -> None:
    from datetime import timedelta

    from minio import Minio

    client = Minio(
        "127.0.0.1:9", access_key="name", secret_key="secret", secure=False, region="us-east-1"
    )
    link = client.presigned_get_object("corpus", "data/x.parquet", expires=timedelta(minutes=5))
    assert link.startswith(
        "http://127.0.0.1:9/corpus/data/x.parquet?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    )


# Transfer syntax -> a file of pydicom's own, and its shape.
ENCODED = {
    "JPEG baseline": ("1.2.840.10008.1.2.4.50", "SC_rgb_jpeg_dcmtk.dcm"),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", "SC_rgb_jpeg_gdcm.dcm"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "emri_small_jpeg_ls_lossless.dcm"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.91", "JPEG2000.dcm"),
    "RLE": ("1.2.840.10008.1.2.5", "SC_rgb_rle.dcm"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_pydicom_decodes(name: str) -> None:
    import pydicom
    from pydicom.data import get_testdata_file

    syntax, file = ENCODED[name]
    path = get_testdata_file(file, download=False)
    assert path, f"{file} is neither in pydicom nor in pydicom-data"
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    pixels = dataset.pixel_array
    assert (dataset.Rows, dataset.Columns) == pixels.shape[-3:-1] or (
        dataset.Rows,
        dataset.Columns,
    ) == pixels.shape[-2:]
    assert pixels.min() < pixels.max()


def test_parquet_keeps_nulls_and_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "image": [b"\x00\xff", None]})
    frame.to_parquet(tmp_path / "x.parquet")
    read = pd.read_parquet(tmp_path / "x.parquet")
    assert read["image"][0] == b"\x00\xff"
    assert read["image"][1] is None


def test_safetensors_are_bytes_of_the_weights(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = {"w": torch.arange(6.0).reshape(2, 3)}
    for name in ("a", "b"):
        save_file(weights, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(load_file(tmp_path / "a")["w"], weights["w"])


def test_commands_of_the_environment_are_on_hand() -> None:
    path = f"{BIN}:{os.environ['PATH']}"
    assert [name for name in ("arl", "dvc", "kfp") if not shutil.which(name, path=path)] == []


# Licences that a reader may take for copyleft, and why the package may stay.
LICENCES_EXPLAINED = {
    "grandalf": "GPL-2.0 or EPL-1.0 at choice (LICENSE of the package); dvc draws graphs with it",
    "pygit2": "GPL-2.0 with a linking exception for unlimited linking; dvc reads Git with it",
}


def test_the_default_install_has_no_copyleft_package() -> None:
    """A package under GPL or AGPL alone fails; "GPL or another" may be taken as the other."""
    lock = (Path(__file__).parents[1] / "requirements.lock").read_text(encoding="utf-8")
    names = re.findall(r"(?m)^([a-z0-9._-]+)", lock)
    command = [BIN / "pip-licenses", "--from=mixed", "--format=json", "--packages", *names]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(listed) > 200
    copyleft = {
        row["Name"].lower(): row["License"]
        for row in listed
        if re.search(r"(?<!L)(?<!Lesser )A?GPL|General Public License", row["License"])
        and not re.search(r"\bOR\b|Lesser|LGPL", row["License"])
    }
    assert copyleft.keys() <= LICENCES_EXPLAINED.keys(), copyleft
