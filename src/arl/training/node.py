"""Tables that one rank of a node makes for all ranks of the node."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist

from arl.training import distributed

_TABLE, _ERROR = "table.feather", "error.txt"
_PATH_BYTES = 4096  # the longest path that Linux knows


def make_per_node(make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the table that `make` makes; of the ranks of a node, only the first calls `make`.

    The others read its table from a folder of the node's TMPDIR, which is removed afterwards.

    Raises:
        ValueError: `make` raised an error; the other ranks of the node raise its message.
    """
    if distributed.world_size() == 1:
        return make()
    leads = int(os.environ.get("LOCAL_RANK", "0")) == 0
    own = Path(tempfile.mkdtemp(prefix="arl-rows-")) if leads else None
    try:
        failure = _make_table(make, own) if own else None
        folder = _folder_of_node(own)
        if failure:
            raise failure
        if (folder / _ERROR).is_file():
            raise ValueError((folder / _ERROR).read_text(encoding="utf-8"))
        if not (folder / _TABLE).is_file():
            raise ValueError("the first rank of this node failed; its own message has the reason")
        return pd.read_feather(folder / _TABLE)
    finally:
        distributed.barrier()
        if own:
            shutil.rmtree(own, ignore_errors=True)


def _make_table(make: Callable[[], pd.DataFrame], folder: Path) -> Exception | None:
    """Store the table, or the message of the error that is returned."""
    try:
        make().reset_index(drop=True).to_feather(folder / _TABLE)
    except Exception as error:
        # Raised behind the collective, in which the other ranks would wait for ever. On a full
        # disk the part of a table makes room for the message.
        (folder / _TABLE).unlink(missing_ok=True)
        with suppress(OSError):
            (folder / _ERROR).write_text(str(error), encoding="utf-8")
        return error
    return None


def _folder_of_node(own: Path | None) -> Path:
    """Gather the folders of all ranks; return that of this node's first rank."""
    path = os.fsencode(own or "")
    packed = torch.zeros(_PATH_BYTES, dtype=torch.uint8)
    packed[: len(path)] = torch.frombuffer(bytearray(path or b"\0"), dtype=torch.uint8)[: len(path)]
    packed = packed.to(distributed.collective_device())
    paths = [torch.empty_like(packed) for _ in range(distributed.world_size())]
    dist.all_gather(paths, packed)
    # torchrun numbers the ranks node by node.
    leader = distributed.rank() - int(os.environ.get("LOCAL_RANK", "0"))
    return Path(os.fsdecode(bytes(paths[leader].tolist()).rstrip(b"\0")))
