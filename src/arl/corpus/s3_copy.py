"""A corpus in an S3 store, for steps that share no volume: what they read is fetched, and what they add is sent.

Images are fetched when they are looked at (`streamed`), but for steps that need the shards as
files.

    s3://bucket/prefix/<source>/<batch>/...    as in a folder; batch.json is written last, once, and makes it a batch

A batch is written once and never changed, so a file that is here with its size is not fetched
again.
"""

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from arl.corpus.remote_shards import ADDRESS
from arl.progress import progress
from arl.storage.backends import cache, locked
from arl.storage.s3 import Listed, Store, is_address

_HEAD = "batch.json"
_THREADS = 8  # files under way at once


@contextmanager
def at_hand(corpus: str, *, adds: bool = False, shards: bool = False) -> Iterator[str]:
    """A corpus as a folder: `corpus` itself or, where that is s3://bucket/prefix, a copy in the cache ($ARL_CACHE).

    Args:
        adds: for who adds batches and reads none: the folder only tells which batches there are,
            and what is new is
            sent when the block ends without an error.
        shards: for who needs the shards as files, on a disk that holds them all.

    Raises:
        FileNotFoundError: the store holds no complete batch, and one is to be read.
        OSError: see `arl.storage.s3.Store`; or a batch of this name was added by someone else
            meanwhile.
    """
    if not is_address(corpus):
        yield corpus
        return
    store, place = Store(corpus), cache() / "corpus"
    place.mkdir(parents=True, exist_ok=True)
    if adds:
        with tempfile.TemporaryDirectory(dir=place) as name:
            heads = [item for item in _complete(store) if item.key.endswith(f"/{_HEAD}")]
            _fetch(store, heads, Path(name))
            yield name
            _send(store, Path(name), {item.key for item in heads})
        return
    folder = place / store.address.removeprefix("s3://").replace("/", "-")
    with locked(folder):
        items = _complete(store)
        if not items:
            raise FileNotFoundError(
                f"corpus {corpus} holds no complete batch (no <source>/<batch>/{_HEAD})"
            )
        if not (folder / ADDRESS).is_file():
            (folder / ADDRESS).write_text(store.address, encoding="utf-8")
        # a shard that is here is looked after, too
        _fetch(
            store,
            [i for i in items if shards or not _is_shard(i.key) or (folder / i.key).is_file()],
            folder,
        )
    yield str(folder)


def _complete(store: Store) -> list[Listed]:
    """The files of all complete batches; those of one that is being sent are no part of the corpus yet."""
    items = store.objects()
    batches = {item.key.removesuffix(_HEAD) for item in items if item.key.endswith(f"/{_HEAD}")}
    return [item for item in items if "/".join(item.key.split("/")[:2]) + "/" in batches]


def _is_shard(key: str) -> bool:
    return key.split("/")[-1].startswith("shard-")


def _fetch(store: Store, items: Iterable[Listed], folder: Path) -> None:
    """Download what is not here, and what makes a batch complete last."""
    missing = [item for item in items if not _is_here(folder / item.key, item.size)]
    for item in missing:
        if not (folder / item.key).resolve().is_relative_to(folder.resolve()):
            raise OSError(f"{store.address}/{item.key}: its name leads out of the corpus")
    heads = [item for item in missing if item.key.endswith(f"/{_HEAD}")]
    with (
        progress(len(missing), "fetching the corpus", "file") as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for part in ([item for item in missing if item not in heads], heads):
            for _ in pool.map(lambda item: store.download(item.key, folder / item.key), part):
                bar.update()
    for item in missing:
        if not _is_here(folder / item.key, item.size):
            raise OSError(
                f"{store.address}/{item.key} has not the {item.size} bytes that were listed: it has changed"
            )


def _is_here(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _send(store: Store, corpus: Path, known: set[str]) -> None:
    """Upload the batches whose head is not among `known`, each of them whole before its head."""
    for head in sorted(corpus.glob(f"*/*/{_HEAD}")):
        if head.relative_to(corpus).as_posix() not in known:
            _send_batch(store, corpus, head)


def _send_batch(store: Store, corpus: Path, head: Path) -> None:
    batch = head.parent.relative_to(corpus).as_posix()
    files = {
        path.relative_to(corpus).as_posix(): path
        for path in sorted(head.parent.rglob("*"))
        if path.is_file()
    }
    last = files.pop(f"{batch}/{_HEAD}").read_bytes()
    if store.exists(f"{batch}/{_HEAD}"):
        _check_same(store, batch, last)  # before any of its files is touched
        return
    for key, path in files.items():
        store.upload(key, path)
    found = {item.key: item.size for item in store.objects(f"{batch}/")}
    for key, path in files.items():
        if found.get(key) != path.stat().st_size:
            raise OSError(
                f"{store.address}/{key} has {found.get(key)} of {path.stat().st_size} bytes: send it again"
            )
    try:
        store.put_if_absent(f"{batch}/{_HEAD}", last)
    except FileExistsError:
        _check_same(store, batch, last)


def _check_same(store: Store, batch: str, head: bytes) -> None:
    """Another try of this step may have been faster; anything else of this name is not ours to change."""
    if store.get(f"{batch}/{_HEAD}") != head:
        raise FileExistsError(
            f"{store.address}/{batch} was added by someone else meanwhile: choose another batch name"
        )
