"""The real images, built from the lock, and the whole pipeline in their containers.

Needs root, Debian's docker.io and debootstrap, a package index that pip reaches, and 30 GB of disk;
skips, saying what is missing. `make image-test` runs it alone. A daemon that is there already, and
its layers, are used where ARL_TEST_DOCKER_HOST names it; otherwise everything is made anew and
removed at the end.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import certifi
import pytest

ROOT = Path(__file__).parents[2]
FULL = SimpleNamespace(**runpy.run_path(str(ROOT / "tests/pipelines/test_arl_full.py")))
project, reproduced = FULL.project, FULL.reproduced
TARGETS = ("data", "train", "monitor")
TAG = "image-test"
BASE = "arl-image-test-base:12"
LOCKED_DOWN = [
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def docker() -> Iterator[SimpleNamespace]:
    """A command line for a daemon; `made` says whether the daemon is this test's own."""
    executable = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker")
    host = os.environ.get("ARL_TEST_DOCKER_HOST")
    if host is None:
        missing = [
            name
            for name in ("dockerd", "debootstrap")
            if not shutil.which(name, path=f"{os.defpath}:/usr/sbin")
        ]
        if missing:
            pytest.skip(
                f"{', '.join(missing)} is not installed: apt-get install docker.io debootstrap"
            )
        if os.getuid():
            pytest.skip("a Docker daemon can be started by root only")
        if shutil.disk_usage("/var/tmp").free < 30e9:
            pytest.skip("the images need 30 GB of free disk in /var/tmp")

    def command(*words: str, **options: object) -> str:
        environment = {**os.environ, "DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(
            [executable, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        assert done.returncode == 0, (
            f"docker {' '.join(words)}: {(done.stdout + done.stderr)[-4000:]}"
        )
        return done.stdout + done.stderr

    if host:
        yield SimpleNamespace(run=command, host=host, made=False)
        return
    folder = Path(tempfile.mkdtemp(prefix="arl-docker-", dir="/var/tmp"))
    host = f"unix://{folder}/socket"
    words = [
        "dockerd",
        "--iptables=false",
        "--bridge=none",
        f"--host={host}",
        f"--data-root={folder}/data",
    ]
    words += [f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        if not _answers(daemon, folder / "socket"):
            pytest.skip(f"dockerd does not start here: {(folder / 'log').read_text()[-600:]}")
        yield SimpleNamespace(run=command, host=host, made=True)
        command("system", "prune", "--all", "--force", "--volumes")
    finally:
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(daemon: "subprocess.Popen[bytes]", socket: Path) -> bool:
    deadline = time.monotonic() + 60
    while daemon.poll() is None and time.monotonic() < deadline:
        if socket.exists():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(scope="module")
def base(docker: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Debian 12 with its own Python 3.11, since no registry of images may be in reach."""
    if BASE not in docker.run("images", "--format={{.Repository}}:{{.Tag}}").split():
        folder = tmp_path_factory.mktemp("debian")
        packages = "--include=python3,python3-venv,ca-certificates"
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(
                f"debootstrap cannot make a base image: {done.stdout[-500:]}{done.stderr[-500:]}"
            )
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
            docker.run("import", "-", BASE, stdin=tar.stdout)
        shutil.rmtree(folder)
    return BASE


@pytest.fixture(scope="module")
def images(
    docker: SimpleNamespace, base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """ARL_IMAGE of the three images, built with this machine's package index."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "pip.conf").write_text(_pip_configuration())
    secrets = [f"--secret=id=pip,src={folder}/pip.conf", f"--secret=id=ca,src={_certificates()}"]
    for target in TARGETS:
        words = ["build", "--network=host", f"--build-arg=BASE={base}", f"--target={target}"]
        docker.run(*words, *secrets, f"--tag=arl-{target}:{TAG}", str(ROOT))
    yield f"arl-{{target}}:{TAG}"
    docker.run("image", "rm", "--force", *(f"arl-{target}:{TAG}" for target in TARGETS))


def _configured() -> dict[str, str]:
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    return dict(re.findall(r"(?m)^(?:global|:env:|install)\.?([\w-]+)='(.*)'$", told.stdout))


def _pip_configuration() -> str:
    """What of this machine's pip configuration means something in a container."""
    known = {
        name: value
        for name, value in _configured().items()
        if name in ("index-url", "trusted-host")
    }
    lines = [f"{name} = {value}" for name, value in known.items()]
    return "\n".join(["[global]", "timeout = 180", "cert = /run/secrets/ca", *lines]) + "\n"


def _certificates() -> str:
    return _configured().get("cert") or os.environ.get("SSL_CERT_FILE") or certifi.where()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_without_root_network_or_a_root_to_write_to(
    docker: SimpleNamespace, images: str, target: str
) -> None:
    image = images.replace("{target}", target)
    assert docker.run("run", "--rm", *LOCKED_DOWN, image, "id", "-u").strip() == "1000"
    assert "commands:" in docker.run("run", "--rm", *LOCKED_DOWN, image)
    told = docker.run("run", "--rm", *LOCKED_DOWN, image, "arl", "configure", "--help")
    assert told.startswith("usage: arl configure")
    told = docker.run("run", "--rm", *LOCKED_DOWN, image, "python", "-m", "pip", "check")
    assert "No broken requirements" in told or target != "monitor" or "has requirement" not in told
    history = docker.run("history", "--no-trunc", image) + docker.run("inspect", image)
    assert "://" not in re.sub(r"https://(github|www)\.\S+", "", history), (
        "an address of the build is in the image"
    )


def test_a_step_writes_its_volume_as_user_1000(
    docker: SimpleNamespace, images: str, tmp_path: Path
) -> None:
    shared = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        os.chown(shared, 1000, 1000)
        image = images.replace("{target}", "data")
        few = ["sample.images_per_anatomy=1", "sample.images_per_task=0", "data.workers=0"]
        mount = ["--mount", f"type=bind,source={shared},target=/mnt/arl"]
        docker.run(
            "run",
            "--rm",
            *LOCKED_DOWN,
            *mount,
            image,
            "arl",
            "sample",
            "--corpus",
            "/mnt/arl/data",
            *few,
        )
        owners = {path.stat().st_uid for path in shared.rglob("*")}
        assert owners == {1000}
        assert (shared / "data/pydicom-data/0000/batch.json").is_file()
    finally:
        shutil.rmtree(shared)


def test_the_whole_pipeline_in_containers_writes_what_dvc_writes(
    docker: SimpleNamespace, images: str, reproduced: Path
) -> None:
    """Each step locked down, with the parameters of the project and not those of the image."""
    shutil.copytree(ROOT / "conf", reproduced / "conf")
    environment = {**FULL.environment(), "DOCKER_HOST": docker.host, "ARL_IMAGE": images}
    words = [
        "kfp",
        "run",
        "pipelines/arl_full.py",
        "--backend",
        "docker",
        "--registry",
        "registry-of-docker",
    ]
    done = subprocess.run(
        words, cwd=reproduced, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    print(done.stdout)
    folder, out = Path(FULL.line_of(done.stdout, "artifacts: ")), reproduced / "out"
    pairs = {
        "validation": "validate/validation",
        "pretrain": "pretrain/checkpoint",
        "pretrain.json": "pretrain/metrics",
    }
    for number, task in enumerate(FULL.TASKS):
        pairs[f"finetune/{task}"] = f"for-loop-1-iteration-{number}/finetune/model"
        pairs[f"evaluate/{task}"] = f"for-loop-1-iteration-{number}/evaluate/evaluation"
    for dvc, kubeflow in pairs.items():
        FULL.same_bytes(out / dvc, folder / kubeflow)
    decision = json.loads((out / "decision/decision.json").read_text())
    assert FULL.line_of(done.stdout, "Output: ") == decision["verdict"]
    assert (folder / "report/report/index.html").is_file()


def test_a_stage_that_dies_ends_the_run(
    docker: SimpleNamespace, images: str, project: Path
) -> None:
    """The corpus breaks a rule: the step says so, and nothing after it runs."""
    shutil.copytree(ROOT / "conf", project / "conf", dirs_exist_ok=True)
    empty = project / "broken"
    shutil.copytree(project / "data", empty)
    for shard in empty.rglob("shard-*.parquet"):
        shard.unlink()
    environment = {**FULL.environment(), "DOCKER_HOST": docker.host, "ARL_IMAGE": images}
    words = [
        "arl",
        "run",
        "pipelines/arl_full.py",
        "--backend",
        "docker",
        "--corpus",
        "broken",
        "--data-hash",
        "x",
    ]
    words += ["--root", "broken-runs"]
    done = subprocess.run(
        words, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "arl run: Pipeline 'arl-full' finished with status FAILURE"
    )
    assert "validate" in done.stderr.splitlines()[-1]
    (ran,) = (project / "broken-runs").glob("arl-full-*")
    assert {step.name for step in ran.iterdir()} <= {"validate"}
