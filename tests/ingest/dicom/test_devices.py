"""Device names come from a table; other text ends as a keyed hash."""

import pytest
from pydicom.dataset import Dataset

from arl.ingest.dicom.devices import device_name

KEY = b"a key of the devices' test, 32 b."


def header(maker: str | None, model: str | None) -> Dataset:
    dataset = Dataset()
    if maker is not None:
        dataset.Manufacturer = maker
    if model is not None:
        dataset.ManufacturerModelName = model
    return dataset


@pytest.mark.parametrize(
    ("maker", "model", "name"),
    [
        ("GE Healthcare", "LOGIQ E9", "GE LOGIQ E9"),
        ("G.E. Medical", "LOGIQ 700", "GE LOGIQ 700"),
        ("GE Vingmed Ultrasound", "Vivid E95", "GE Vivid E95"),
        ("Philips Medical Systems", "iU22", "Philips iU22"),
        ("Philips Medical Systems", "EPIQ 7G", "Philips EPIQ 7G"),
        ("SIEMENS", "ACUSON S2000", "Siemens ACUSON S2000"),
        ("TOSHIBA", "Aplio 300", "Canon Aplio 300"),
        ("SonoSite Inc.", "Turbo", "Fujifilm SonoSite Turbo"),
        ("Samsung Medison", "RS80A", "Samsung RS80A"),
        ("Mindray", "DC-8", "Mindray DC-8"),
        ("Phantom", "Alpha", "Phantom Alpha"),
        ("GE Healthcare", None, "GE"),
        (None, None, None),
        ("", " ", None),
    ],
)
def test_known_devices_keep_their_names(
    maker: str | None, model: str | None, name: str | None
) -> None:
    assert device_name(header(maker, model), KEY) == name


@pytest.mark.parametrize(
    ("maker", "model"),
    [
        ("SonoFast", "Dr Okonkwo room 4"),
        ("GE Healthcare", "LOGIQ Okonkwo"),
        ("GE Healthcare", "Dr Okonkwo"),
        ("Philips", "EPIQ 7 Okonkwo Adaeze"),
        ("Okonkwo Adaeze", "LOGIQ E9"),
        ("Siemens", "S2000 14.07.1938 Okonkwo"),
    ],
)
def test_free_text_is_hashed(maker: str, model: str) -> None:
    name = device_name(header(maker, model), KEY)
    assert name is not None
    assert "Okonkwo" not in name
    assert "1938" not in name
    assert name.split(" ")[-1].startswith(("model-", "device-"))
    assert name == device_name(header(maker, model), KEY)
    assert name != device_name(header(maker, model), KEY + b"2")
    assert "other" in (device_name(header(maker, model)) or "")
