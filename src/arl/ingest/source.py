"""The description of a data source, and the interface that every reader implements."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from arl.corpus.record import Input
from arl.settings import Dicom

OptionName = Literal["site", "anatomy", "probe", "device", "mask_name"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Facts about all images of an ingest that the data itself does not state.

    None means that the command line does not set the option. A reader uses only the options that
    its `Source.options` names.
    """

    site: str | None = None
    anatomy: str | None = None
    probe: str | None = None
    device: str | None = None
    mask_name: str | None = None

    def typed(self) -> dict[str, str]:
        """The options that are set."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


Reader = Callable[[Path, Options, Dicom], list[Input]]


def without_options(read: Callable[[Path], list[Input]]) -> Reader:
    """The reader of a published dataset, which states everything itself."""
    return lambda root, options, dicom: read(root)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data source: how to read it, and what a user must know about it.

    `read(root, options, dicom)` lists every input before it opens any. It raises FileNotFoundError
    if the root does not hold the layout, and ValueError if the layout contradicts itself. A problem
    with one input is the refusal of that input. A clip is one input.

    Attributes:
        name: As typed on the command line; the file of the reader has the same name.
        title: What the set holds, and its paper.
        layout: Folders and files that the reader expects.
        keys: How the id of an image is formed.
        coding: What becomes the label, the mask and other columns.
        patient: What identifies patients and clips.
        split: Official splits, and what "default" is.
        refuses: Which inputs end in quarantine.
        options: The fields of `Options` that the reader uses.
        published: A dataset with a layout of its own, which `arl datasets --root` can recognise.
        reads_dicom: The reader uses the section `dicom` of params.yaml.
    """

    name: str
    title: str
    read: Reader
    licence: str
    citation: str
    obtain: str
    layout: str
    keys: str
    coding: str
    patient: str
    split: str
    refuses: str
    options: tuple[OptionName, ...] = ()
    published: bool = True
    reads_dicom: bool = False
