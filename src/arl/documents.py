"""JSON documents that one class writes and reads: a format, a version, and typed fields.

A document is a frozen dataclass. Its fields are JSON scalars, other dataclasses, and lists, tuples
and dictionaries of these. Each file names its format, e.g. `"format": "arl.decision/2"`, so that a
file of another version is an error and never a wrong answer.
"""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias, Union, get_args, get_origin
from typing import get_type_hints as resolve_hints

from arl.files import read_json, write_json

Json: TypeAlias = "Mapping[str, Json] | list[Json] | str | int | float | bool | None"

DECIMALS = 6  # of every number in a document, unless a field is declared `exact`
EXACT: Mapping[str, bool] = {"exact": True}  # metadata of a field that is not rounded
_FORMAT = "format"


class DocumentError(ValueError):
    """A file is not the document that it should be."""


@dataclass(frozen=True)
class Document:
    """Base class of the documents. Subclasses set FORMAT, e.g. "arl.decision", and VERSION."""

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int]

    @classmethod
    def format_name(cls) -> str:
        """What the file says of itself."""
        return f"{cls.FORMAT}/{cls.VERSION}"

    def to_json(self) -> dict[str, Json]:
        """The fields as JSON values, with the format.

        Raises:
            ValueError: a number is not finite.
        """
        # The format stands in the file itself, since files are copied without their names.
        return {_FORMAT: self.format_name(), **_encode_fields(self)}

    def to_text(self) -> str:
        """The text of the file: sorted keys, two spaces of indentation."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            DocumentError: the file is not JSON, has another format or version, or a field is
                missing, unknown or of another type.
        """
        try:
            content = read_json(path)
        except ValueError as error:
            raise DocumentError(str(error)) from error
        return cls.from_json(content, str(path))

    @classmethod
    def from_json(cls, content: Any, origin: str) -> Self:
        """The document of JSON values; `origin` names their file in errors.

        Raises:
            DocumentError: as `read`.
        """
        if not isinstance(content, dict):
            raise DocumentError(f"{origin} is not a JSON object")
        written = content.get(_FORMAT)
        if written != cls.format_name():
            raise DocumentError(
                f"{origin} has format {written!r}, expected {cls.format_name()!r}:"
                " write it again with this version of ARL"
            )
        # The format is checked above and is no field of the class.
        body = {name: value for name, value in content.items() if name != _FORMAT}
        document = _decode(cls, body, origin)
        assert isinstance(document, cls)
        return document


def _encode_fields(record: Any) -> dict[str, Json]:
    return {
        field.name: _encode(
            getattr(record, field.name), None if field.metadata.get("exact") else DECIMALS
        )
        for field in fields(record)
    }


def _encode(value: Any, decimals: int | None) -> Json:
    # numpy.float64 is a float too; numpy integers are not int and are refused below.
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number and cannot be written")
        # adding zero turns -0.0 into 0.0
        return float(value) if decimals is None else round(float(value), decimals) + 0.0
    if is_dataclass(value):
        return _encode_fields(value)
    if isinstance(value, Mapping):
        return {str(key): _encode(item, decimals) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item, decimals) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"a document cannot hold a value of type {type(value).__name__}")


@cache
def _hints(cls: type) -> Mapping[str, object]:
    return resolve_hints(cls)


def _decode(hint: Any, value: Any, where: str) -> Any:
    """The value as the annotated type; `where` is the file and the path inside of it."""
    origin, arguments = get_origin(hint), get_args(hint)
    # `X | None` has the origin UnionType, `Optional[X]` has Union.
    if origin in (Union, types.UnionType):
        return _decode_optional(hint, arguments, value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise DocumentError(f"{where} is {value!r}, expected one of {list(arguments)}")
    if is_dataclass(hint):
        return _decode_dataclass(hint, _object(value, where), where)
    if origin in (dict, Mapping):
        items = _object(value, where).items()
        return {key: _decode(arguments[1], item, f"{where}: {key}") for key, item in items}
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise DocumentError(f"{where} is not a list")
        return origin(
            _decode(arguments[0], item, f"{where}: {index}") for index, item in enumerate(value)
        )
    return _decode_scalar(hint, value, where)


def _decode_optional(hint: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    others = [argument for argument in arguments if argument is not type(None)]
    if len(others) != 1:
        raise TypeError(f"{hint}: a document has no other unions than those with None")
    return _decode(others[0], value, where)


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DocumentError(f"{where} is not a JSON object")
    return value


def _decode_dataclass(cls: Any, content: Mapping[str, object], where: str) -> Any:
    declared = {field.name: field for field in fields(cls)}
    # An unknown field is an error: a misspelt name would silently become a default.
    unknown = sorted(content.keys() - declared.keys())
    missing = sorted(
        name
        for name, field in declared.items()
        if name not in content and field.default is MISSING and field.default_factory is MISSING
    )
    if unknown or missing:
        raise DocumentError(f"{where} lacks {missing} and has unknown fields {unknown}")
    hints = _hints(cls)
    return cls(
        **{name: _decode(hints[name], item, f"{where}: {name}") for name, item in content.items()}
    )


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    # bool is a subclass of int, and JSON writes a whole float without a point
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise DocumentError(f"{where} is not a finite number")
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    raise DocumentError(f"{where} is not of type {getattr(hint, '__name__', hint)}")
