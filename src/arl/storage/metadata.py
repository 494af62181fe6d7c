"""The documents of a registry: a version's manifest, the champion pointer, a release's receipt."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from arl.documents import Document

PointerAction = Literal["promote", "rollback", "sign"]


@dataclass(frozen=True)
class GitState:
    """The commit of the working directory, and whether a file differs from it."""

    commit: str
    dirty: bool


@dataclass(frozen=True)
class Provenance:
    """Origin of a version.

    Attributes:
        git: None outside a repository.
        data: hash by which DVC knows the corpus; None without data.dvc.
        image: name and digest of the container image.
        signed: whether the version was released to a signed registry.
    """

    git: GitState | None = None
    data: str | None = None
    image: str | None = None
    signed: bool = False


@dataclass(frozen=True)
class VersionManifest(Document):
    """manifest.json of a version.

    Attributes:
        files: relative name -> SHA-256 of every other file but the signature.
    """

    FORMAT: ClassVar[str] = "arl.version"
    VERSION: ClassVar[int] = 1

    version: str
    files: dict[str, str]
    provenance: Provenance = Provenance()

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that have a model."""
        # From the file list, which is verified; a field of its own could contradict it.
        return sorted({name.split("/")[1] for name in self.files if name.startswith("tasks/")})


@dataclass(frozen=True)
class Bar:
    """A version that may not be promoted again, and who rolled it back, when and why."""

    version: str
    at: str
    person: str
    reason: str


@dataclass(frozen=True)
class ChampionPointer(Document):
    """The version in use, and how it came into use.

    Attributes:
        number: 1, 2, ...; grows with every move.
        previous: SHA-256 of the pointer before; empty for the first one.
        history: versions in the order of their promotion, without those rolled back; the last one
            is in use.
        barred: versions that a person rolled back.
    """

    FORMAT: ClassVar[str] = "arl.champion"
    VERSION: ClassVar[int] = 1

    number: int
    at: str
    action: PointerAction
    version: str
    history: list[str]
    previous: str = ""
    person: str = ""
    reason: str = ""
    barred: list[Bar] = field(default_factory=list)


@dataclass(frozen=True)
class Receipt(Document):
    """receipt.json: the gate's verdict, and the version that was released; None without one."""

    FORMAT: ClassVar[str] = "arl.receipt"
    VERSION: ClassVar[int] = 1

    verdict: str
    version: str | None = None
