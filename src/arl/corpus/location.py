"""How a command uses the corpus that its `--corpus` names.

The annotation of a parameter states the use, and the command line provides a folder for it. A
corpus at s3://bucket/prefix is copied as far as the use needs; see `s3_copy.local_copy`.
"""

from pathlib import Path
from typing import Literal, TypeAlias

Mode = Literal["read", "append", "full", "freeze"]

# The command reads tables, and images through `shard_reader`.
ReadableCorpus: TypeAlias = Path
# The command adds batches, and reads only which batches exist.
GrowingCorpus: TypeAlias = Path
# The command reads shards as files.
FullCorpus: TypeAlias = Path
# The command reads tables and adds versions of test sets.
TestSetCorpus: TypeAlias = Path

MODES: dict[str, Mode] = {
    "ReadableCorpus": "read",
    "GrowingCorpus": "append",
    "FullCorpus": "full",
    "TestSetCorpus": "freeze",
}
