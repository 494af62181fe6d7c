"""A corpus in an S3 store, for steps that share no volume.

    s3://bucket/prefix/<source>/<batch>/...   as in a folder; batch.json is uploaded last

Tables are copied to the cache. Images stay in the store, and `remote_shards` reads them when they
are needed, except for steps that need the shards as files. A batch never changes, so a file that is
in the cache with its size is not fetched again.
"""

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from arl.corpus.batch_summary import BATCH_FILE
from arl.corpus.location import Mode
from arl.corpus.remote_shards import ADDRESS
from arl.corpus.testsets import FOLDER as TEST_SETS
from arl.progress import progress
from arl.storage.backends import cache, locked
from arl.storage.s3 import Listed, Store, is_address

# Files in transfer at the same time.
_THREADS = 8


@contextmanager
def local_copy(corpus: str, mode: Mode = "read") -> Iterator[str]:
    """A corpus as a folder: `corpus` itself, or a copy in $ARL_CACHE if it is s3://bucket/prefix.

    Args:
        mode: "read" copies the tables. "full" copies the shards, too. "append" yields an empty
            corpus that only knows which batches exist; the batches that the block adds are
            uploaded if it ends without an error. "freeze" reads, and uploads new versions of test
            sets at the end.

    Raises:
        FileNotFoundError: The store holds no complete batch, and the mode is not "append".
        OSError: The store fails (see `arl.storage.s3.Store`), or another process has added a batch
            of the same name in the meantime.
    """
    if not is_address(corpus):
        yield corpus
        return
    store, root = Store(corpus), cache() / "corpus"
    root.mkdir(parents=True, exist_ok=True)
    if mode == "append":
        with tempfile.TemporaryDirectory(dir=root) as name:
            items = [
                item
                for item in _complete_batches(store)
                if _is_summary(item.key) or _is_test_set(item.key)
            ]
            _fetch(store, items, Path(name))
            yield name
            _upload_new(store, Path(name), {item.key for item in items})
        return
    folder = root / store.address.removeprefix("s3://").replace("/", "-")
    with locked(folder):
        items = _complete_batches(store)
        if not items:
            raise FileNotFoundError(
                f"corpus {corpus} holds no complete batch (no <source>/<batch>/{BATCH_FILE})"
            )
        if not (folder / ADDRESS).is_file():
            (folder / ADDRESS).write_text(store.address, encoding="utf-8")
        # A shard that an earlier "full" copy fetched is kept up to date.
        _fetch(
            store,
            [
                item
                for item in items
                if mode == "full"
                or not item.key.split("/")[-1].startswith("shard-")
                or (folder / item.key).is_file()
            ],
            folder,
        )
    yield str(folder)
    if mode == "freeze":
        _upload_test_sets(store, folder, {item.key for item in items})


def _complete_batches(store: Store) -> list[Listed]:
    """The files of all complete batches; a batch that is being uploaded is not complete.

    Test sets are among them: each of their files is complete in itself.
    """
    items = store.objects()
    batches = {item.key.removesuffix(BATCH_FILE) for item in items if _is_summary(item.key)}
    return [
        item
        for item in items
        if "/".join(item.key.split("/")[:2]) + "/" in batches or _is_test_set(item.key)
    ]


def _is_test_set(key: str) -> bool:
    return key.startswith(f"{TEST_SETS}/")


def _is_summary(key: str) -> bool:
    return key.endswith(f"/{BATCH_FILE}")


def _fetch(store: Store, items: Iterable[Listed], folder: Path) -> None:
    """Download the missing files; each batch.json after all other files."""
    missing = [item for item in items if not _has_size(folder / item.key, item.size)]
    for item in missing:
        if not (folder / item.key).resolve().is_relative_to(folder.resolve()):
            raise OSError(f"{store.address}/{item.key}: the name leads out of the corpus")
    summaries = [item for item in missing if _is_summary(item.key)]
    others = [item for item in missing if not _is_summary(item.key)]
    with (
        progress(len(missing), "fetching the corpus", "file") as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for part in (others, summaries):
            for _ in pool.map(lambda item: store.download(item.key, folder / item.key), part):
                bar.update()
    for item in missing:
        if not _has_size(folder / item.key, item.size):
            raise OSError(
                f"{store.address}/{item.key} does not have the {item.size} bytes "
                "that the store listed: it has changed"
            )


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _upload_new(store: Store, corpus: Path, existing: set[str]) -> None:
    """Upload the batches whose batch.json is not `existing`, and new versions of test sets."""
    _upload_test_sets(store, corpus, existing)
    for summary in sorted(corpus.glob(f"*/*/{BATCH_FILE}")):
        if summary.relative_to(corpus).as_posix() not in existing:
            _upload_batch(store, corpus, summary)


def _upload_test_sets(store: Store, corpus: Path, existing: set[str]) -> None:
    for file in sorted(corpus.glob(f"{TEST_SETS}/*/*.json")):
        key = file.relative_to(corpus).as_posix()
        if key not in existing:
            store.put_if_absent(key, file.read_bytes())


def _upload_batch(store: Store, corpus: Path, summary: Path) -> None:
    batch = summary.parent.relative_to(corpus).as_posix()
    files = {
        path.relative_to(corpus).as_posix(): path
        for path in sorted(summary.parent.rglob("*"))
        if path.is_file()
    }
    content = files.pop(f"{batch}/{BATCH_FILE}").read_bytes()
    if store.exists(f"{batch}/{BATCH_FILE}"):
        # Before any file of that batch is overwritten.
        _check_same(store, batch, content)
        return
    for key, path in files.items():
        store.upload(key, path)
    sizes = {item.key: item.size for item in store.objects(f"{batch}/")}
    for key, path in files.items():
        if sizes.get(key) != path.stat().st_size:
            raise OSError(
                f"{store.address}/{key} has {sizes.get(key)} of {path.stat().st_size} bytes: "
                "upload it again"
            )
    try:
        store.put_if_absent(f"{batch}/{BATCH_FILE}", content)
    except FileExistsError:
        _check_same(store, batch, content)


def _check_same(store: Store, batch: str, content: bytes) -> None:
    """Accept an equal batch, which another attempt of this step has uploaded; refuse any other."""
    if store.get(f"{batch}/{BATCH_FILE}") != content:
        raise FileExistsError(
            f"another process has added {store.address}/{batch} in the meantime: "
            "choose another batch name"
        )
