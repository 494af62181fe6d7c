"""Objects in any S3 store: what DVC does not do for us.

Create-once writes, a pointer that moves by compare-and-swap, versions of an object and links for
people without credentials. Works with AWS, Ceph, SeaweedFS, Swift, ...; the address and the keys
come from the environment variables that AWS' own tools and DVC read.

Compare-and-swap is made of create-once writes (`If-None-Match: *`), which these servers share;
`If-Match` on a write is refused by Swift and older gateways. A pointer is therefore a row of
numbered objects, of which the last one counts.

AWS, for one, decides a race of create-once writes. Swift does not: of writers within the same
milliseconds each may get the answer that it came first, and the last one stays. So a writer that
moves a pointer reads it again after a moment. This is Fischer's mutual exclusion: right as long as
no write takes longer than that moment.
"""

import os
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import certifi
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider, Provider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.signer import sign_v4_s3
from minio.versioningconfig import VersioningConfig

from arl.files import atomic_file

ENDPOINT = "AWS_ENDPOINT_URL"
_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/?")
# From "?" to the end of an address, as messages quote it.
_QUERY = re.compile(r"\?[^\s\"'<>)]+")
_TIMEOUT = urllib3.Timeout(connect=5, read=60)  # seconds
_SETTLE = 1.0  # seconds after which a pointer's new value stands
_ATTEMPTS = 3  # of a create-once write that another one disturbs
_DIGITS = 8  # of the number of a revision
_LINK_HOURS = (1, 7 * 24)  # signatures of version 4 end after a week
_MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "ResourceNotFound"}
_DENIED = {
    "AccessDenied",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "InvalidToken",
}


def redacted(text: str) -> str:
    """A text without the query strings of its addresses: a presigned address is a credential."""
    return _QUERY.sub("?[redacted]", text)


@dataclass(frozen=True)
class Revision:
    """A value that a pointer has had."""

    number: int  # 1, 2, ...
    data: bytes


@dataclass(frozen=True)
class Listed:
    """An object without its content."""

    key: str  # below the store's prefix
    size: int  # bytes
    modified: datetime


def is_address(text: str) -> bool:
    """Whether a text names a store, `s3://bucket[/prefix]`."""
    return text.startswith("s3://")


class Store:
    """The objects of a bucket below a prefix.

    Every method raises
        FileNotFoundError: the bucket or the object is not there.
        FileExistsError: a create-once write came second.
        PermissionError: credentials are missing, wrong, expired or too weak.
        ConnectionError: the endpoint cannot be reached, or failed.
        OSError: the store answered anything else that it should not.
    """

    def __init__(self, address: str) -> None:
        """`address`: s3://bucket or s3://bucket/prefix; the endpoint is $AWS_ENDPOINT_URL, else
        AWS.

        Raises:
            ValueError: the address or the endpoint is malformed.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise ValueError(
                f"{address!r} is not s3://bucket/prefix with a bucket name of 3 to 63 of a-z, "
                f"0-9, '.', '-'"
            )
        self.address = address.rstrip("/")
        self._bucket, self._prefix = match[1], f"{match[2]}/" if match[2] else ""
        self._endpoint = os.environ.get(ENDPOINT) or "https://s3.amazonaws.com"
        self._http = _connections()
        providers: list[Provider] = [EnvAWSProvider(), AWSConfigProvider()]
        self._credentials = ChainedProvider(providers)
        self._client = _client(self._endpoint, self._http, self._credentials)

    def get(self, key: str, version: str | None = None) -> bytes:
        """The content of an object, of its newest version where none is named."""
        with self._errors(key):
            response = self._client.get_object(self._bucket, self._prefix + key, version_id=version)
            try:
                return bytes(response.data)
            finally:
                response.close()
                response.release_conn()

    def size(self, key: str) -> int:
        """The length of an object, bytes."""
        with self._errors(key):
            return int(self._client.stat_object(self._bucket, self._prefix + key).size or 0)

    def read(self, key: str, first: int, count: int) -> bytes:
        """`count` bytes of an object from byte `first` on; OSError where it has not so many."""
        with self._errors(key):
            response = self._client.get_object(
                self._bucket, self._prefix + key, offset=first, length=count
            )
            try:
                listed = bytes(response.data)
            finally:
                response.close()
                response.release_conn()
        # A range beyond the end gives fewer bytes and no error.
        if len(listed) != count:
            raise OSError(
                f"{self.address}/{key}: {len(listed)} of {count} bytes from byte {first} on"
            )
        return listed

    def put(self, key: str, data: bytes) -> None:
        """Write an object, in place of an earlier one."""
        with self._errors(key):
            self._client.put_object(self._bucket, self._prefix + key, BytesIO(data), len(data))

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write an object that does not exist; of several writers at once, one succeeds."""
        with self._errors(key):
            for _ in range(_ATTEMPTS):
                response = self._put_once(key, data)
                # AWS answers 409 while another conditional write of this key is under way.
                if response.status != 409:
                    break
        self._check_created(key, response)

    def _put_once(self, key: str, data: bytes) -> urllib3.BaseHTTPResponse:
        """A PUT with a signed condition.

        The SDK has no conditional headers. The signature is in a header and covers the condition;
        a presigned address would grant the write to everyone who reads it in a message.
        """
        # The SDK knows the host, path and region of an object, and tells them in this address only.
        address = urlsplit(
            self._client.get_presigned_url(
                "PUT", self._bucket, self._prefix + key, timedelta(seconds=1)
            )
        )
        region = parse_qs(address.query)["X-Amz-Credential"][0].split("/")[2]
        url = address._replace(query="")
        digest = sha256(data).hexdigest()
        now = datetime.now(UTC)
        # The digest of the content is signed too, so that nobody on the way can change it.
        headers: dict[str, str | list[str] | tuple[str]] = {
            "Host": url.netloc,
            "If-None-Match": "*",
            "Content-MD5": b64encode(md5(data, usedforsecurity=False).digest()).decode(),
            "Content-Length": str(len(data)),
            "x-amz-content-sha256": digest,
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        credentials = self._credentials.retrieve()
        if credentials.session_token:
            headers["X-Amz-Security-Token"] = credentials.session_token
        signed = sign_v4_s3(
            method="PUT",
            url=url,
            region=region,
            headers=headers,
            credentials=credentials,
            content_sha256=digest,
            date=now,
        )
        # Never sent twice by the pool: a second attempt would find the object of the first.
        plain = {name: str(value) for name, value in signed.items()}
        return self._http.request("PUT", url.geturl(), body=data, headers=plain, retries=_NEVER)

    def _check_created(self, key: str, response: urllib3.BaseHTTPResponse) -> None:
        if response.status in (200, 201, 204):
            return
        where = f"{self.address}/{key}"
        if response.status in (409, 412):
            raise FileExistsError(f"{where} is there already, and is written only once")
        if response.status == 404:
            raise FileNotFoundError(f"{where}: the bucket does not exist")
        if response.status in (401, 403):
            raise PermissionError(
                f"{where}: the store at {self._endpoint} refuses the write: check the AWS "
                f"credentials"
            )
        if response.status == 501:
            raise OSError(
                f"{where}: the store at {self._endpoint} has no create-once writes (If-None-Match)"
            )
        raise ConnectionError(f"{where}: the store at {self._endpoint} answered {response.status}")

    def check_create_once(self) -> None:
        """Make sure of what everything here rests on: some stores ignore the condition and
        overwrite.
        """
        key = f".probe/{uuid4().hex}"
        self.put_if_absent(key, b"first")
        try:
            self.put_if_absent(key, b"second")
        except FileExistsError:
            return
        finally:
            self.remove(key)
        raise OSError(
            f"the store at {self._endpoint} ignores If-None-Match: two writers would overwrite "
            f"each other"
        )

    def upload(self, key: str, file: Path) -> None:
        """Write a file of any size as an object."""
        with self._errors(key):
            self._client.fput_object(self._bucket, self._prefix + key, str(file))

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file, which appears whole or not at all."""
        with self._errors(key), atomic_file(file) as partial:
            response = self._client.get_object(self._bucket, self._prefix + key)
            try:
                with partial.open("wb") as stream:
                    for chunk in response.stream(1 << 20):
                        stream.write(chunk)
            finally:
                response.close()
                response.release_conn()

    def remove(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        with self._errors(key):
            self._client.remove_object(self._bucket, self._prefix + key)

    def exists(self, key: str) -> bool:
        """Whether there is an object."""
        try:
            with self._errors(key):
                self._client.stat_object(self._bucket, self._prefix + key)
        except FileNotFoundError:
            return False
        return True

    def objects(self, prefix: str = "") -> list[Listed]:
        """The objects whose key begins so, sorted."""
        now = datetime.now(UTC)  # where a store does not tell, nothing is old
        with self._errors(prefix):
            listed = list(
                self._client.list_objects(self._bucket, self._prefix + prefix, recursive=True)
            )
        return sorted(
            (
                Listed(
                    str(item.object_name).removeprefix(self._prefix),
                    int(item.size or 0),
                    item.last_modified or now,
                )
                for item in listed
            ),
            key=lambda item: item.key,
        )

    def link(self, key: str, hours: int = _LINK_HOURS[1]) -> str:
        """An address that reads an object without credentials until it ends.

        Raises:
            ValueError: not 1 to 168 hours.
        """
        if not _LINK_HOURS[0] <= hours <= _LINK_HOURS[1]:
            raise ValueError(
                f"a link lasts {_LINK_HOURS[0]} to {_LINK_HOURS[1]} hours, not {hours}"
            )
        with self._errors(key):
            return str(
                self._client.presigned_get_object(
                    self._bucket, self._prefix + key, timedelta(hours=hours)
                )
            )

    def keep_versions(self) -> None:
        """Let the bucket keep what is overwritten or deleted."""
        with self._errors(""):
            self._client.set_bucket_versioning(self._bucket, VersioningConfig(ENABLED))

    def versions(self, key: str) -> list[str]:
        """The versions of an object that the bucket has kept, newest first."""
        name = self._prefix + key
        with self._errors(key):
            listed = self._client.list_objects(
                self._bucket, name, recursive=True, include_version=True
            )
            return [
                str(item.version_id)
                for item in listed
                if item.object_name == name and not item.is_delete_marker
            ]

    def pointer(self, name: str) -> Revision | None:
        """The value of a pointer; None before its first."""
        keys = [
            item.key
            for item in self.objects(f"{name}/")
            if re.fullmatch(r"\d+", item.key.removeprefix(f"{name}/"))
        ]
        newest = self._revision(name, int(keys[-1].removeprefix(f"{name}/"))) if keys else None
        # a listing may lag behind in some stores, a read of a new key does not
        while (later := self._revision(name, newest.number + 1 if newest else 1)) is not None:
            newest = later
        return newest

    def _revision(self, name: str, number: int) -> Revision | None:
        try:
            return Revision(number, self.get(_revision_key(name, number)))
        except FileNotFoundError:
            return None

    def move(self, name: str, data: bytes, after: Revision | None) -> Revision:
        """Give a pointer a new value if `after` is its value still (None: it has none).

        Raises:
            FileExistsError: another writer has moved it since.
        """
        number = after.number + 1 if after else 1
        key = _revision_key(name, number)
        self.put_if_absent(key, data)
        # See the top of the file: a store without an atomic condition lets the last writer win.
        time.sleep(_SETTLE)
        if self.get(key) != data:
            raise FileExistsError(
                f"{self.address}/{key} was written by another writer at the same time"
            )
        return Revision(number, data)

    def history(self, name: str) -> list[Revision]:
        """All values a pointer has had, oldest first."""
        newest = self.pointer(name)
        numbers = range(1, newest.number + 1) if newest else range(0)
        return [Revision(number, self.get(_revision_key(name, number))) for number in numbers]

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """What the SDK raises, as the errors of the class."""
        where = f"{self.address}/{key}"
        try:
            yield
        except S3Error as error:
            raise _translated(error, where, self._endpoint) from error
        except (ServerError, InvalidResponseError, urllib3.exceptions.HTTPError) as error:
            # Neither the message nor a traceback may show a signed address.
            raise ConnectionError(
                f"{where}: the store at {self._endpoint} cannot be reached or failed: "
                f"{redacted(str(error))}"
            ) from None
        except ValueError as error:
            # The SDK has no class of its own for missing credentials.
            if "fail to fetch credentials" not in str(error):
                raise
            names = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            text = f"{where}: no credentials: set {names}"
            raise PermissionError(text) from error


_NEVER = urllib3.Retry(
    connect=3, read=0, status=0, other=0, redirect=0, backoff_factor=0.2, raise_on_status=False
)


def _revision_key(name: str, number: int) -> str:
    return f"{name}/{number:0{_DIGITS}d}"


def _translated(error: S3Error, where: str, endpoint: str) -> OSError:
    if error.code in _MISSING:
        missing = "the bucket" if error.code == "NoSuchBucket" else "it"
        return FileNotFoundError(f"{where}: {missing} does not exist")
    if error.code in _DENIED:
        return PermissionError(
            f"{where}: the store at {endpoint} refuses the request ({error.code}): check the "
            f"credentials"
        )
    return OSError(f"{where}: the store at {endpoint} answered {error.code}: {error.message}")


def _connections() -> urllib3.PoolManager:
    # A busy store says 503 and is asked again over six seconds; to overwrite twice with the same
    # bytes does no harm.
    retry = urllib3.Retry(
        total=6,
        connect=3,
        read=3,
        backoff_factor=0.2,
        status_forcelist=[500, 502, 503, 504],
        allowed_methods={"GET", "HEAD", "PUT"},
    )
    bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where()
    return urllib3.PoolManager(
        timeout=_TIMEOUT, retries=retry, cert_reqs="CERT_REQUIRED", ca_certs=bundle, maxsize=8
    )


def _client(endpoint: str, connections: urllib3.PoolManager, credentials: Provider) -> Minio:
    parts = urllib3.util.parse_url(endpoint)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or parts.path not in (None, "", "/")
    ):
        raise ValueError(f"{ENDPOINT} is {endpoint!r}, which is not http(s)://host[:port]")
    return Minio(
        parts.netloc,
        secure=parts.scheme == "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        credentials=credentials,
        http_client=connections,
    )
