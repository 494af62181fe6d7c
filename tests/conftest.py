"""A corpus of a few dozen little images, parameters that fit it, and a real browser without a
network.
"""

import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
import pytest

from arl import params as parameters
from arl.corpus.batch_summary import BatchOrigin
from arl.corpus.shard_writer import BatchWriter
from arl.storage.signing import Keys

ROOT = Path(__file__).parent.parent
TINY = [
    "data.size=32",
    "model.embed_dim=24",
    "model.depth=4",
    "model.num_heads=3",
    "model.patch_size=8",
    "model.anatomy_hidden=8",
    "objective.local_crops_size=16",
    "objective.prototypes=16",
    "objective.decoder_dim=16",
    "objective.decoder_depth=1",
    "objective.decoder_heads=2",
    "objective.discriminator_dim=4",
    "pretrain.batch_size=8",
    "pretrain.max_steps=3",
    "pretrain.checkpoint_every=2",
    "pretrain.threads=1",
    "finetune.batch_size=8",
    "finetune.epochs=1",
    "finetune.upernet_channels=8",
    "evaluate.bootstrap=50",
    "gate.bootstrap=50",
    "gate.min_patients=2",
    "tasks=[breast,lv]",
]


@pytest.fixture(scope="session")
def tiny_overrides() -> list[str]:
    """What makes params.yaml small."""
    return list(TINY)


@pytest.fixture(scope="session", autouse=True)
def fixed_stamp() -> Iterator[None]:
    """Pages have one date and no duration, so that the same data give the same bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "0")
        yield


@pytest.fixture
def tiny_params() -> parameters.Params:
    """params.yaml at a scale of seconds, with a classification and a segmentation task."""
    return parameters.load(TINY, ROOT / "params.yaml")


def _picture(rng: np.random.Generator, bright: bool) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a disc, brighter or darker than its surroundings, and the disc's mask."""
    rows, columns = np.mgrid[:40, :48]
    centre = rng.uniform(14, 26, 2)
    mask = np.hypot(rows - centre[0], columns - centre[1]) < 9
    level = 60 + 90 * (mask if bright else ~mask)
    return rng.normal(level, 15).clip(0, 255).astype(np.uint8), mask


def write_batch(
    corpus: Path, source: str, *, patients: int = 30, batch: str = "0000", seed: int = 0
) -> None:
    """Two images of each patient: breast with a label, heart with a mask of the left ventricle."""
    rng = np.random.default_rng(seed)
    with BatchWriter(
        corpus,
        source,
        batch,
        64,
        origin=BatchOrigin(licence="none", citation="tests"),
    ) as writer:
        for patient in range(patients):
            split = ("train", "train", "train", "val", "test")[patient % 5]
            malignant = bool((patient // 5) % 2)
            common = {
                "patient": f"p{batch}{patient}",
                "device": f"scanner {patient % 2}",
                "probe": "linear",
            }
            image, _ = _picture(rng, malignant)
            label = "malignant" if malignant else "benign"
            writer.accept(
                image,
                key=f"{batch}-b{patient}",
                anatomy="breast",
                label=label,
                splits={"default": split},
                **common,
            )
            image, mask = _picture(rng, True)
            writer.accept(
                image,
                mask=mask,
                mask_name="lv",
                key=f"{batch}-c{patient}",
                anatomy="cardiac",
                splits={"default": split},
                **common,
            )


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of 30 patients from one source, `clinic`."""
    corpus = tmp_path_factory.mktemp("corpus") / "data"
    write_batch(corpus, "clinic")
    return corpus


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real S3 server (`s3_server.S3Server`); only slow tests use it."""
    running = runpy.run_path(str(ROOT / "tests" / "s3_server.py"))["running"]
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a new bucket; the environment holds the server's address and keys."""
    from minio import Minio

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    environment = s3_server.environment
    keys = (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    client = Minio(
        s3_server.endpoint.removeprefix("http://"),
        access_key=keys[0],
        secret_key=keys[1],
        secure=False,
        region=environment["AWS_REGION"],
    )
    name = f"arl-{uuid4().hex[:12]}"
    client.make_bucket(name)
    return name


@pytest.fixture
def new_keys() -> Callable[[Path], Keys]:
    """Make a pair of keys in a folder, as OpenSSL would."""

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(folder: Path) -> Keys:
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        keys = Keys((folder / "public.pem",), folder / "private.pem")
        assert keys.private is not None
        keys.private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        keys.public[0].write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return keys

    return make


@pytest.fixture
def deliver() -> Callable[..., Path]:
    """Put a batch for `arl watch` into an inbox: two pictures a patient, like those of
    `tiny_corpus` at gain 1.
    """
    return _deliver


def _deliver(
    inbox: Path,
    name: str,
    *,
    patients: int = 30,
    seed: int = 1,
    gain: float = 1,
    torn: int = 0,
    site: str = "clinic",
    device: str = "",
) -> Path:
    """The first `torn` pictures are cut off; the marker is written last."""
    batch = inbox / site / name
    batch.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    columns = (
        "file,patient,anatomy,label,mask,mask_file,probe,device,depth_cm,pixel_spacing_mm,split"
    )
    rows = []
    for number in range(2 * patients):
        anatomy = ("breast", "cardiac")[number % 2]
        image, _ = _picture(rng, anatomy == "cardiac" or bool((number // 10) % 2))
        cv2.imwrite(str(batch / f"{number}.png"), (image * gain).clip(0, 255).astype(np.uint8))
        if number < torn:
            os.truncate(batch / f"{number}.png", 100)
        rows.append(
            f"{number}.png,{name}-{number // 2},{anatomy},,,,linear,"
            f"{device or f'scanner {number // 2 % 2}'},,,"
        )
    (batch / "pictures.csv").write_text("\n".join([columns, *rows]) + "\n")
    (inbox / site / f"{name}.complete").touch()
    return batch


@dataclass(frozen=True)
class Opened:
    """A page as Chromium saw it."""

    title: str
    text: str
    errors: list[str]  # messages of the console and uncaught exceptions
    requests: list[
        str
    ]  # everything asked for beside local files and inline data; all of it was blocked
    overflow: int  # pixels the page is wider than its window


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.fail("no chromium on the PATH, so pages cannot be opened: run `make debian`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Callable[..., Opened]:
    """Open a local page with the network blocked; optionally write a screenshot of all of it."""

    def open_(
        path: Path, width: int = 1280, dark: bool = False, screenshot: Path | None = None
    ) -> Opened:
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        errors: list[str] = []
        requests: list[str] = []

        def answer(route: Any) -> None:
            if route.request.url.startswith(("file:", "data:", "blob:")):
                route.continue_()
            else:
                requests.append(route.request.url)
                route.abort()

        page = context.new_page()
        page.route("**/*", answer)
        page.on(
            "console",
            lambda message: (
                errors.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.resolve().as_uri(), wait_until="load")
        if screenshot is not None:
            page.screenshot(path=screenshot, full_page=True)
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        opened = Opened(page.title(), page.inner_text("body"), errors, requests, max(0, overflow))
        context.close()
        return opened

    return open_
