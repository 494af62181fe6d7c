"""`make images`: the calls of Docker, and the file that pipelines and manifests read."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + 64 * "1"
# Docker's answers, as its client prints them; every call is a line of the log
DOCKER = f"""#!/bin/sh
echo "$*" >> "$LOG"
case "$1 $2" in
"image inspect") echo "hub.example/lab/$(expr "$*" : '.*/\\(arl-[a-z]*\\):')@{DIGEST}" ;;
esac
"""


@pytest.fixture
def run(tmp_path: Path) -> "subprocess.CompletedProcess[str]":
    return script(tmp_path, SCAN="no", SIGN="no")


def script(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run bin/images with a Docker client that only answers."""
    (folder / "bin").mkdir(exist_ok=True)
    docker = folder / "bin/docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    path = f"{folder / 'bin'}:/usr/bin:/bin"
    environment = {**os.environ, "PATH": path, "LOG": str(folder / "log"), **variables}
    words = [str(ROOT / "bin/images"), "hub.example/lab", str(folder / "settings")]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_the_digests_are_written_beside_the_settings(
    run: "subprocess.CompletedProcess[str]", tmp_path: Path
) -> None:
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "settings/images.env").read_text().splitlines()
    assert lines[1:] == [
        f"ARL_IMAGE_{target.upper()}=hub.example/lab/arl-{target}@{DIGEST}"
        for target in ("data", "train", "monitor")
    ]
    assert (tmp_path / "settings/cluster.yaml").is_file()
    assert f"export ARL_CLUSTER={tmp_path}/settings/cluster.yaml" in run.stdout


def test_every_image_is_labelled_and_pushed(
    run: "subprocess.CompletedProcess[str]", tmp_path: Path
) -> None:
    calls = (tmp_path / "log").read_text().splitlines()
    builds = [call for call in calls if call.startswith("build ")]
    pushes = [call for call in calls if call.startswith("push ")]
    assert len(builds) == len(pushes) == 3
    assert all("org.opencontainers.image.revision=" in build for build in builds)


def test_a_scan_and_a_signature_are_left_out_in_words_only(tmp_path: Path) -> None:
    done = script(tmp_path, SIGN="no")
    assert done.returncode == 1
    assert "trivy is not installed" in done.stderr
    assert not (tmp_path / "settings").exists()
    assert "cosign is not installed" in script(tmp_path, SCAN="no").stderr


def test_a_file_of_images_is_read_beside_the_cluster_file(
    run: "subprocess.CompletedProcess[str]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.images import image_of, is_digest

    for name in ("ARL_IMAGE", "ARL_IMAGE_TRAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ARL_CLUSTER", str(tmp_path / "settings/cluster.yaml"))
    assert image_of("train") == f"hub.example/lab/arl-train@{DIGEST}"
    assert is_digest(image_of("train"))
    assert not is_digest("hub.example/lab/arl-train:0.2.0")
