"""Ask an image registry whether an image can be pulled (the OCI distribution API)."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

# Without these a registry translates to the oldest format, or answers 404 for an index.
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_TIMEOUT = urllib3.Timeout(connect=5, read=10)

Auths = dict[str, dict[str, str]]


class NotPullableError(Exception):
    """The registry answered, and does not give the image."""


class RegistryUnreachableError(Exception):
    """The registry does not answer from this machine."""


@dataclass(frozen=True)
class Reference:
    """The parts of an image's name."""

    registry: str
    repository: str
    reference: str

    @classmethod
    def parse(cls, image: str) -> "Reference":
        """Split REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@DIGEST."""
        name, _, digest = image.partition("@")
        host, slash, rest = name.partition("/")
        # Docker's rule: the first part is a host if it has a dot or a port, or is localhost
        if not slash or not re.search(r"[.:]|^localhost$", host):
            host, rest = "registry-1.docker.io", name if slash else f"library/{name}"
        repository, _, tag = rest.partition(":")
        return cls(host, repository, digest or tag or "latest")


def docker_auths() -> Auths:
    """The credentials in the Docker configuration of this user."""
    file = Path.home() / ".docker" / "config.json"
    if not file.is_file():
        return {}
    auths: Auths = json.loads(file.read_text(encoding="utf-8")).get("auths", {})
    return auths


def auths_of_secret(secret: dict[str, Any]) -> Auths:
    """The credentials in a Secret of the type kubernetes.io/dockerconfigjson."""
    content = base64.b64decode(secret.get("data", {}).get(".dockerconfigjson", "e30="))
    auths: Auths = json.loads(content).get("auths", {})
    return auths


def check_pullable(image: str, auths: Auths) -> None:
    """Ask for the manifest of an image.

    Raises:
        NotPullableError: the image does not exist, or the credentials do not suffice.
        RegistryUnreachableError: the registry does not answer from here.
    """
    parts = Reference.parse(image)
    is_local = parts.registry.split(":")[0] in ("localhost", "127.0.0.1")
    url = f"http{'' if is_local else 's'}://{parts.registry}/v2/{parts.repository}"
    credentials = _credentials(parts.registry, auths)
    headers = {"Accept": _ACCEPT, **({"Authorization": credentials} if credentials else {})}
    try:
        with urllib3.PoolManager(timeout=_TIMEOUT, retries=False) as pool:
            answer = pool.request("HEAD", f"{url}/manifests/{parts.reference}", headers=headers)
            challenge = answer.headers.get("WWW-Authenticate", "")
            if answer.status == 401 and challenge.lower().startswith("bearer"):
                token = _token(pool, challenge, parts.repository, credentials)
                headers["Authorization"] = f"Bearer {token}"
                answer = pool.request("HEAD", f"{url}/manifests/{parts.reference}", headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise RegistryUnreachableError(
            f"{parts.registry} does not answer from here: {error}"
        ) from error
    if answer.status in (401, 403):
        raise NotPullableError(f"{parts.registry} refuses the credentials ({answer.status})")
    if answer.status == 404:
        raise NotPullableError(f"{parts.registry} has no {parts.repository} {parts.reference}")
    if answer.status >= 400:
        raise RegistryUnreachableError(f"{parts.registry} answers {answer.status}")


def _credentials(registry: str, auths: Auths) -> str | None:
    # `docker login` has written all three forms over the years
    for name in (registry, f"https://{registry}", f"https://{registry}/v1/"):
        entry = auths.get(name, {})
        if "auth" in entry:
            return f"Basic {entry['auth']}"
        if "username" in entry:
            plain = f"{entry['username']}:{entry.get('password', '')}"
            return f"Basic {base64.b64encode(plain.encode()).decode()}"
    return None


def _token(
    pool: urllib3.PoolManager, challenge: str, repository: str, credentials: str | None
) -> str:
    """Follow the challenge of a registry with a token server."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if "realm" not in fields:
        return ""
    query = {"scope": f"repository:{repository}:pull"}
    if "service" in fields:
        query["service"] = fields["service"]
    headers = {"Authorization": credentials} if credentials else {}
    answer = pool.request("GET", f"{fields['realm']}?{urlencode(query)}", headers=headers)
    if answer.status != 200:
        return ""
    body = json.loads(answer.data)
    return str(body.get("token") or body.get("access_token") or "")
