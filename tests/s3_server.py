"""A real S3 server for the tests: OpenStack Swift with its S3 interface, from packages pinned in
swift.lock.

Swift gets an environment of its own, made once and kept in the user's cache folder, since its
packages are not ours. Four processes on free local ports, without memcached or root; they keep what
they store in a temporary folder.
"""

import fcntl
import getpass
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).parent / "swift.lock"
ACCESS_KEY, SECRET_KEY = "arl:admin", "arl-test-secret"
READER_KEY = "arl:reader"  # has no rights on the buckets of the other one
_START_SECONDS = 60

_SERVER = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
recon_cache_path = {folder}/cache
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_FILTERS = {
    "catch_errors": "",
    "gatekeeper": "",
    "listing_formats": "",
    "s3api": (
        "s3_acl = false\nlocation = us-east-1\ncheck_bucket_owner = false\n"
        "storage_domain = localhost"
    ),
    "tempauth": f"user_arl_admin = {SECRET_KEY} .admin\nuser_arl_reader = {SECRET_KEY}",
    "bulk": "",
    "slo": "",
    "dlo": "",
    "versioned_writes": "allow_object_versioning = true",
    "symlink": "",
}


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str  # http://127.0.0.1:<port>

    @property
    def environment(self) -> dict[str, str]:
        """What ARL, DVC and AWS' tools read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def swift_environment() -> Path:
    """The bin folder of Swift's environment, made where it is not there yet."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "arl"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"swift-{digest}"
    with (cache / "swift.flock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # test processes that run side by side make it once
        if not (folder / "done").is_file():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [
                folder / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
            ]
            subprocess.run([*pip, "--disable-pip-version-check", "-r", LOCK], check=True)
            (folder / "done").touch()
    return folder / "bin"


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Start a server that stores in `folder`, and stop it in the end."""
    binaries = swift_environment()
    for name in ("devices/sda1", "cache"):
        (folder / name).mkdir(parents=True)
    ports = dict(zip(("object", "container", "account", "proxy"), _free_ports(4), strict=True))
    _configure(folder, binaries, ports)
    with ExitStack() as stack:
        processes = [stack.enter_context(_server(folder, binaries, kind)) for kind in ports]
        _wait(ports["proxy"], processes, folder)
        yield S3Server(f"http://127.0.0.1:{ports['proxy']}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _configure(folder: Path, binaries: Path, ports: dict[str, int]) -> None:
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = arl\nswift_hash_path_prefix = arl\n"
        "[storage-policy:0]\nname = Policy-0\ndefault = yes\n[swift-constraints]\nmax_header_size "
        "= 32768\n"
    )
    user = getpass.getuser()
    for kind in ("object", "container", "account"):
        text = _SERVER.format(port=ports[kind], user=user, folder=folder, kind=kind)
        (folder / f"{kind}-server.conf").write_text(text)
        ring = [binaries / "swift-ring-builder", f"{kind}.builder"]
        place = ["--region", "1", "--zone", "1", "--ip", "127.0.0.1", "--port", str(ports[kind])]
        for step in (
            ["create", "4", "1", "1"],
            ["add", *place, "--device", "sda1", "--weight", "1"],
            ["rebalance"],
        ):
            subprocess.run([*ring, *step], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    filters = "".join(
        f"[filter:{name}]\nuse = egg:swift#{name}\n{options}\n"
        for name, options in _FILTERS.items()
    )
    (folder / "proxy-server.conf").write_text(
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {ports['proxy']}\nworkers = 0\nuser = "
        f"{user}\n"
        f"swift_dir = {folder}\n[pipeline:main]\npipeline = {' '.join(_FILTERS)} proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = "
        "true\nallow_account_management = true\n" + filters
    )


@contextmanager
def _server(folder: Path, binaries: Path, kind: str) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / f"{kind}.log").open("wb") as log:
        command = [binaries / f"swift-{kind}-server", folder / f"{kind}-server.conf"]
        environment = os.environ | {"SWIFT_DIR": str(folder)}
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(port: int, processes: list["subprocess.Popen[bytes]"], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    logs = "\n".join(
        f"{log.name}: {log.read_text(errors='replace')[-1000:]}"
        for log in sorted(folder.glob("*.log"))
    )
    raise RuntimeError(f"Swift did not start:\n{logs}")
