"""The compiled pipeline, and whole runs of both orchestrators on a tiny corpus."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from arl import params

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/pipelines/golden/arl_full.yaml"
BIN = Path(sys.executable).parent
TASKS = ["breast", "lv"]


def environment(**changes: str) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("KFP_", "ARL_"))
    }
    path = f"{ROOT / 'bin'}:{BIN}:{os.environ['PATH']}"
    # the golden file does not change with the code
    return {**clean, "PATH": path, "ARL_CODE_VERSION": "golden", **changes}


def compiled(folder: Path, **changes: str) -> list[dict[str, Any]]:
    """The two documents that kfp's own command makes of arl_full.py."""
    output = folder / "arl_full.yaml"
    command = [
        "kfp",
        "dsl",
        "compile",
        "--py",
        str(ROOT / "pipelines/arl_full.py"),
        "--output",
        str(output),
    ]
    subprocess.run(command, cwd=folder, env=environment(**changes), check=True, capture_output=True)
    return list(yaml.safe_load_all(output.read_text(encoding="utf-8")))


def test_compiled_pipeline_is_the_golden_one(tmp_path: Path) -> None:
    again = "make golden"
    assert compiled(tmp_path) == list(yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))), (
        f"if this change is intended: {again}"
    )


def test_golden_pipeline_fits_kubeflows_schemas() -> None:
    spec, platform = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == spec["deploymentSpec"]["executors"].keys()
    for config in executors.values():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_steps_install_nothing_and_have_resources() -> None:
    spec, _ = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    for name, executor in spec["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert "pip install" not in json.dumps(container), name
        assert {"resourceCpuRequest", "resourceMemoryLimit"} <= container["resources"].keys(), name
    gpus = {
        name.removeprefix("exec-"): executor["container"]["resources"]
        .get("accelerator", {})
        .get("resourceCount")
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }
    assert gpus["pretrain"] == "1"
    assert gpus["validate"] is None


def test_what_depends_on_the_registry_is_not_cached() -> None:
    spec, _ = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    dags = [
        spec["root"]["dag"],
        *(part["dag"] for part in spec["components"].values() if "dag" in part),
    ]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items()}
    cached = {
        name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")
    }
    pipelines_in_it = {"ingest-batches", "for-loop-1"}  # only their steps can be cached
    assert cached - pipelines_in_it == {"pretrain", "finetune", "evaluate", "drift"}
    # The versions of data and code are inputs of every cached step, so that the cache never answers
    # with a result of other data or code.
    for name in cached - pipelines_in_it:
        parameters = tasks[name]["inputs"]["parameters"]
        (source,) = parameters["data_hash"].values()
        assert source in (
            {"outputParameterKey": "Output", "producerTask": "accept"},
            "pipelinechannel--accept-Output",
        )
        assert parameters["code_version"] == {"runtimeValue": {"constant": "golden"}}


def test_code_that_changed_is_another_input(tmp_path: Path) -> None:
    """The cache key holds the image's name, not its content (2.17.0, cacheutils/cache.go)."""
    for name in ("src", "components"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc"))
    program = "from components.version import code_version; print(code_version())"

    def version() -> str:
        clean = {k: v for k, v in environment().items() if k != "ARL_CODE_VERSION"}
        clean["PYTHONPATH"] = str(tmp_path)
        words = [sys.executable, "-c", program]
        done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = version()
    assert before == version()
    with (tmp_path / "src/arl/objectives/mim.py").open("a") as file:
        file.write("# changed\n")
    assert version() != before


def test_a_retry_fits_its_window() -> None:
    """Argo ends a step's last try at backoff.maxDuration after the start of the first.

    argo-workflows v4.0.5, workflow/controller/operator.go:1026 and workflowpod.go:666; the SDK's
    default is 3600 s.
    """
    spec, platform = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    dags = [part["dag"] for part in spec["components"].values() if "dag" in part]
    for dag in [spec["root"]["dag"], *dags]:
        for name, task in dag["tasks"].items():
            if "retryPolicy" in task:
                policy = task["retryPolicy"]
                tries = int(policy["maxRetryCount"]) + 1
                deadline = int(pods[f"exec-{name}"]["activeDeadlineSeconds"])
                window = int(policy["backoffMaxDuration"].removesuffix("s"))
                assert window >= tries * deadline, name


def test_a_corpus_that_breaks_a_rule_is_uploaded_before_it_stops_the_run() -> None:
    """A failing step uploads its log only (2.17.0, backend/src/v2/component/launcher_v2.go:787)."""
    spec, _ = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["accept"]["dependentTasks"] == ["validate"]
    outputs = spec["components"]["comp-validate"]["outputDefinitions"]["artifacts"]
    assert outputs["page"]["artifactType"]["schemaTitle"] == "system.HTML"
    for name in ("pretrain", "drift", "gate"):
        assert "accept" in tasks[name]["dependentTasks"], name


def test_the_page_of_a_run_has_something_to_draw() -> None:
    """The UI draws these types only (2.17.0, frontend/.../MetricsVisualizations.tsx)."""
    spec, _ = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    types: dict[str, set[str]] = {}
    for name, component in spec["components"].items():
        for artifact in component.get("outputDefinitions", {}).get("artifacts", {}).values():
            title = artifact["artifactType"]["schemaTitle"].removeprefix("system.")
            types.setdefault(title, set()).add(name.removeprefix("comp-"))
    assert types["Metrics"] == {"pretrain", "evaluate", "drift"}
    assert types["ClassificationMetrics"] == {"evaluate"}
    assert types["HTML"] == {"validate", "gate", "drift", "report"}
    assert types["Dataset"] == {"validate"}
    assert types["Model"] >= {"pretrain", "finetune", "release"}


def test_a_run_can_be_started_from_the_form() -> None:
    spec, _ = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items():
        assert parameter["isOptional"], name
        assert parameter["description"], name
        assert parameter["parameterType"] in ("STRING", "LIST"), name
    tasks = spec["root"]["inputDefinitions"]["parameters"]["tasks"]["defaultValue"]
    assert tasks == yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["tasks"]


def test_many_pods_ingest_and_validate_waits_for_them() -> None:
    spec, _ = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["validate"]["dependentTasks"] == ["ingest-batches"]
    (loop,) = spec["components"]["comp-ingest-batches"]["dag"]["tasks"].values()
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--batches"}
    assert loop["iteratorPolicy"] == {"parallelismLimit": 16}
    assert (
        spec["components"]["comp-ingest-batches"]["dag"].get("outputs") is None
    )  # nothing that none could give


def test_every_step_is_placed(tmp_path: Path) -> None:
    """Node, volume, secrets, user and deadline of the pods, as kfp-kubernetes writes them."""
    settings = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))
    settings |= {
        "environment": {"AWS_ENDPOINT_URL": "https://s3.example"},
        "pull_secrets": ["registry"],
    }
    settings |= {
        "node_selector": {"arl.dev/pool": "cpu"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
    }
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    spec, platform = compiled(tmp_path, ARL_CLUSTER=str(tmp_path / "cluster.yaml"))
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, pod in pods.items():
        step = name.removeprefix("exec-")
        gpu = settings["steps"][step]["gpus"] > 0
        assert pod["nodeSelector"]["labels"] == {"arl.dev/pool": "gpu" if gpu else "cpu"}, step
        assert [toleration["key"] for toleration in pod["tolerations"]] == [
            "nvidia.com/gpu" if gpu else "batch"
        ]
        assert pod["securityContext"] == {
            "runAsUser": "1000",
            "runAsGroup": "1000",
            "runAsNonRoot": True,
        }
        assert pod["imagePullSecret"] == [
            {
                "secretName": "registry",
                "secretNameParameter": {"runtimeValue": {"constant": "registry"}},
            }
        ]
        assert pod["pvcMount"][0]["mountPath"] == "/mnt/arl"
        assert pod["activeDeadlineSeconds"] == str(int(settings["steps"][step]["hours"] * 3600))
        secrets = {secret["secretName"] for secret in pod["secretAsEnv"]}
        assert secrets == ({"arl-s3", "arl-hash-key"} if step == "ingest" else {"arl-s3"})
        variables = {
            entry["name"]: entry.get("value")
            for entry in spec["deploymentSpec"]["executors"][name]["container"]["env"]
        }
        files = {mount["secretName"]: mount["mountPath"] for mount in pod.get("secretAsVolume", [])}
        keys = {}
        if step in ("gate", "release"):  # only who releases can sign
            keys["ARL_VERIFY_KEY"] = f"{files.pop('arl-verify-key')}/verify.pem"
        if step == "release":
            keys["ARL_SIGNING_KEY"] = f"{files.pop('arl-signing-key')}/signing.pem"
        assert files == {}, step
        assert json.loads(variables.pop("ARL_LAUNCH")) == {
            "processes": max(1, settings["steps"][step]["gpus"]),
            "attempts": 3,
        }
        assert variables == {
            "ARL_IMAGE": spec["deploymentSpec"]["executors"][name]["container"]["image"],
            "ARL_RUNS": "/mnt/arl/runs",
            "AWS_ENDPOINT_URL": "https://s3.example",
            **keys,
        }


def test_without_a_volume_everything_is_in_s3(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))
    settings |= {"claim": None, "corpus": "s3://arl/data", "registry": "s3://arl/registry"}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    spec, platform = compiled(tmp_path, ARL_CLUSTER=str(tmp_path / "cluster.yaml"))
    for pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert "pvcMount" not in pod
        assert {mount["mountPath"] for mount in pod["emptyDirMounts"]} == {
            *("/dev/shm", "/tmp", "/mnt/arl")
        }
    for executor in spec["deploymentSpec"]["executors"].values():
        variables = {entry["name"]: entry.get("value") for entry in executor["container"]["env"]}
        assert variables["ARL_CACHE"] == "/mnt/arl/cache"
    defaults = {
        name: given.get("defaultValue")
        for name, given in spec["root"]["inputDefinitions"]["parameters"].items()
    }
    assert (defaults["corpus"], defaults["registry"]) == ("s3://arl/data", "s3://arl/registry")


@pytest.mark.parametrize(
    ("pipeline", "changes", "error"),
    [
        (
            "arl_full",
            {"registry": "s3://arl/r"},
            "without a claim corpus must be s3://BUCKET/PREFIX, not /mnt/arl/data",
        ),
        ("arl_full", {"corpus": "s3://arl/data"}, "without a claim registry must be s3://"),
        (
            "arl_full",
            {"corpus": "s3://a", "registry": "s3://a", "nodes": 2},
            "pretrain has several nodes",
        ),
        (
            "arl_monitor",
            {"corpus": "s3://arl/data", "registry": "s3://arl/r"},
            "monitor needs a volume",
        ),
    ],
)
def test_what_needs_a_volume_says_so(
    tmp_path: Path, pipeline: str, changes: dict[str, Any], error: str
) -> None:
    settings = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))
    settings["steps"]["pretrain"]["nodes"] = changes.pop("nodes", 1)
    (tmp_path / "cluster.yaml").write_text(
        yaml.safe_dump(settings | {"claim": None} | changes), encoding="utf-8"
    )
    words = [
        "kfp",
        "dsl",
        "compile",
        "--py",
        str(ROOT / f"pipelines/{pipeline}.py"),
        "--output",
        "x.yaml",
    ]
    variables = environment(ARL_CLUSTER=str(tmp_path / "cluster.yaml"))
    done = subprocess.run(
        words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert error in done.stderr


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"evaluate": {"gpus": 2}},
            "cluster.yaml: step evaluate has more than one of gpus, which only",
        ),
        (
            {"finetune": {"nodes": 2}},
            "cluster.yaml: step finetune has more than one of nodes, which only pretrain can use",
        ),
        ({"pretrain": {"gpu": 2}}, "cluster.yaml: .*unexpected keyword argument 'gpu'"),
    ],
)
def test_a_wrong_cluster_file_does_not_compile(
    tmp_path: Path, changes: dict[str, Any], error: str
) -> None:
    settings = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))
    for step, values in changes.items():
        settings["steps"][step] |= values
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError) as failure:
        compiled(tmp_path, ARL_CLUSTER=str(tmp_path / "cluster.yaml"))
    assert re.search(error, failure.value.stderr.decode())


def test_image_is_fixed_when_compiling(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path, ARL_IMAGE="registry.example/arl-{target}@sha256:00")
    images = {
        name.removeprefix("exec-"): executor["container"]["image"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }
    assert images["drift"] == "registry.example/arl-monitor@sha256:00"
    assert images["pretrain"] == "registry.example/arl-train@sha256:00"


def test_queue_priority_pool_and_labels_of_a_step(tmp_path: Path) -> None:
    pool = {"resource": "amd.com/gpu", "node_selector": {"gpu": "mi300"}, "tolerations": []}
    changes = {
        "queue": "lab",
        "priority_class": "normal",
        "labels": {"cost-centre": "42"},
        "gpu_pools": {"amd": pool},
        "steps": {"pretrain": {"gpu_pool": "amd", "priority_class": "low", "labels": {"own": "1"}}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(changes), encoding="utf-8")
    spec, platform = compiled(tmp_path, ARL_CLUSTER=str(tmp_path / "own.yaml"))
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods["exec-pretrain"]["podMetadata"]["labels"] == {
        "app.kubernetes.io/name": "arl",
        "arl.dev/step": "pretrain",
        "cost-centre": "42",
        "own": "1",
        "kueue.x-k8s.io/queue-name": "lab",
        "kueue.x-k8s.io/priority-class": "low",
    }
    assert pods["exec-gate"]["podMetadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "normal"
    assert pods["exec-pretrain"]["nodeSelector"]["labels"] == {"gpu": "mi300"}
    container = spec["deploymentSpec"]["executors"]["exec-pretrain"]["container"]
    assert container["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"
    # what the file does not name is as in cluster.yaml
    assert container["resources"]["resourceMemoryLimit"] == "64Gi"


def test_another_cluster(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "pipelines/cluster.yaml").read_text(encoding="utf-8"))
    settings["steps"]["pretrain"] |= {"gpus": 4, "hours": 0.5}
    settings["steps"]["finetune"] |= {"gpus": 2}
    settings["claim"] = "shared"
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    spec, platform = compiled(tmp_path, ARL_CLUSTER=str(tmp_path / "cluster.yaml"))
    container = spec["deploymentSpec"]["executors"]["exec-pretrain"]["container"]
    assert container["resources"]["accelerator"]["resourceCount"] == "4"
    launched = {
        step: [
            json.loads(entry["value"])
            for entry in executor["container"]["env"]
            if entry["name"] == "ARL_LAUNCH"
        ]
        for step, executor in spec["deploymentSpec"]["executors"].items()
    }
    assert launched.pop("exec-pretrain") == [{"processes": 4, "attempts": 3}]
    assert launched.pop("exec-finetune") == [{"processes": 2, "attempts": 3}]
    assert {launch["processes"] for (launch,) in launched.values()} == {1}
    pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-pretrain"]
    assert pod["activeDeadlineSeconds"] == "1800"
    assert pod["pvcMount"][0]["constant"] == "shared"


def test_compiling_imports_neither_arl_nor_torch() -> None:
    program = (
        "import pipelines.arl_full, sys; "
        "assert not {'arl', 'torch', 'numpy', 'omegaconf'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, env=environment())


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Path:
    """A copy of the project with a tiny corpus and parameters to fit it, not under git."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", "components", "pipelines"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    scale = runpy.run_path(str(ROOT / "tests/conftest.py"))["TINY"]
    tiny = params.load([*scale, f"tasks={TASKS}"], ROOT / "params.yaml")
    (folder / "params.yaml").write_text(yaml.safe_dump(params.to_literals(tiny)), encoding="utf-8")
    shutil.copytree(tiny_corpus, folder / "data")
    run(folder, "dvc", "init", "--no-scm", "--quiet")
    run(folder, "dvc", "config", "core.analytics", "false")
    run(folder, "dvc", "add", "--quiet", "data")
    return folder


@pytest.fixture(scope="session")
def reproduced(project: Path) -> Path:
    """The project after `dvc repro`."""
    run(project, "dvc", "repro")
    return project


@pytest.mark.slow
def test_dvc_repro_and_again(reproduced: Path) -> None:
    assert "up to date" in run(reproduced, "dvc", "repro").splitlines()[-1]
    assert (reproduced / "out/report/index.html").is_file()


def stages_due(project: Path) -> set[str]:
    """The stages that `dvc repro` would run first; later ones depend on their results."""
    lines = run(project, "dvc", "repro", "--dry").splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "due"),
    [
        ("data.workers", 7, {"release"}),  # which writes all parameters down
        ("pretrain.warmup", 0.7, {"pretrain", "release"}),
        ("finetune.epochs", 7, {"finetune@breast", "finetune@lv", "release"}),
        ("evaluate.bootstrap", 7, {"evaluate@breast", "evaluate@lv"}),
        ("gate.alpha", 0.7, {"gate"}),
        ("drift.alpha", 0.7, {"drift"}),
    ],
)
def test_dvc_runs_the_stages_that_read_a_parameter(
    reproduced: Path, key: str, value: float, due: set[str]
) -> None:
    file = reproduced / "params.yaml"
    before = file.read_text(encoding="utf-8")
    values = yaml.safe_load(before)
    section, name = key.split(".")
    assert values[section][name] != value
    values[section][name] = value
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert stages_due(reproduced) == due
    file.write_text(before, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "due"),
    [
        ("stages/drift.py", {"drift"}),
        ("objectives/mim.py", {"pretrain"}),
        ("storage/registry.py", {"gate", "release"}),
        ("params.py", set()),
    ],
)
def test_dvc_runs_the_stages_that_import_a_file(
    reproduced: Path, source: str, due: set[str]
) -> None:
    file = reproduced / "src" / "arl" / source
    before = file.read_text(encoding="utf-8")
    file.write_text(before + "# changed\n", encoding="utf-8")
    assert stages_due(reproduced) == due
    file.write_text(before, encoding="utf-8")


def line_of(output: str, prefix: str) -> str:
    """The rest of the one line that begins with the prefix."""
    (line,) = (line for line in output.splitlines() if line.startswith(prefix))
    return line.removeprefix(prefix)


def same_bytes(first: Path, second: Path) -> None:
    """Two files, or two folders with the same files, that hold the same bytes."""
    if first.is_file():
        assert first.read_bytes() == second.read_bytes(), f"{first} and {second} differ"
        return
    names = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert names == {path.relative_to(second) for path in second.rglob("*") if path.is_file()}
    for name in sorted(names):
        same_bytes(first / name, second / name)


@pytest.mark.slow
def test_kubeflow_writes_what_dvc_writes(reproduced: Path) -> None:
    output = run(reproduced, "arl", "run", "pipelines/arl_full.py", "--registry", "registry-of-kfp")
    run_folder = line_of(output, "artifacts: ")
    assert f"page: {run_folder}/report/report/index.html" in output.splitlines()
    folder = reproduced / run_folder
    out = reproduced / "out"
    pairs = {
        "validation": "validate/validation",
        "pretrain": "pretrain/checkpoint",
        "pretrain.json": "pretrain/metrics",
        "decision": "gate/decision",
        "receipt.json": "release/receipt",
        "drift": "drift/drift",
        "report": "report/report",
    }
    for number, task in enumerate(TASKS):
        pairs[f"finetune/{task}"] = f"for-loop-1-iteration-{number}/finetune/model"
        pairs[f"evaluate/{task}"] = f"for-loop-1-iteration-{number}/evaluate/evaluation"
    for dvc, kubeflow in pairs.items():
        same_bytes(out / dvc, folder / kubeflow)
    decision = json.loads((out / "decision/decision.json").read_text())
    assert line_of(output, "Output: ") == decision["verdict"]
