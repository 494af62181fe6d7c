"""batch.json: what a batch holds, where it comes from and how it was made."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from arl.files import read_json, write_json

BATCH_FILE = "batch.json"


@dataclass(frozen=True, kw_only=True)
class BatchOrigin:
    """Licence and citation of a source, and how `arl ingest` read it.

    Attributes:
        reader: Name of the reader; None for batches that no reader made, such as phantoms.
        options: Options of the reader that the command line set.
        thinning: Fields of the `Thinning` that was applied to clips.
        burnt_in_text: Rule for text burnt into DICOM images; None where no rule applies.
    """

    licence: str
    citation: str
    reader: str | None = None
    options: dict[str, str] | None = None
    thinning: dict[str, int] | None = None
    burnt_in_text: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchSummary:
    """The content of batch.json.

    A file without the key `version` has version 1, so corpora of earlier releases stay valid and
    keep their bytes. A later version writes the key.

    Attributes:
        num_inputs: Inputs of the ingest; `accepted + refused`.
        images: Images of the accepted inputs.
        thinned: Frames of accepted clips that thinning left out.
        blank: Frames of accepted clips that show nothing and were left out.
        store_size: Long side above which images were scaled down, pixels.
        splits: Protocol -> split -> number of images.
    """

    VERSION: ClassVar[int] = 1

    source: str
    batch: str
    num_inputs: int
    accepted: int
    refused: int
    images: int
    thinned: int
    store_size: int
    blank: int = 0
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    origin: BatchOrigin

    @classmethod
    def read(cls, folder: Path) -> "BatchSummary":
        """Read the batch.json of a batch folder.

        Raises:
            FileNotFoundError: The batch is incomplete.
            ValueError: The file is not JSON, has another version, or lacks a field.
        """
        file = folder / BATCH_FILE
        content = dict(read_json(file))
        version = content.pop("version", 1)
        if version != cls.VERSION:
            raise ValueError(
                f"{file} has version {version!r}, this release of ARL reads {cls.VERSION}: use the"
                " release that wrote the batch, or ingest it again"
            )
        try:
            own = {name: content.pop(name) for name in cls.__dataclass_fields__ if name in content}
            return cls(**own, origin=BatchOrigin(**content))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is not the summary of a batch: {error}") from error

    def write(self, folder: Path) -> None:
        """Write batch.json into a batch folder, atomically."""
        content = asdict(self)
        origin = content.pop("origin")
        # Fields without a value are left out.
        stated = {name: value for name, value in origin.items() if value is not None}
        write_json(folder / BATCH_FILE, content | stated)
