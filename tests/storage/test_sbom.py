"""The bill of materials against the rules of CycloneDX 1.6 that concern it, and against the environment."""

import re
from importlib.metadata import distributions, version

import jsonschema
import pytest

from arl.storage.sbom import licence_of, sbom

# The parts of bom-1.6.schema.json that a list of packages uses, in its words.
LICENCE = {
    "oneOf": [
        {
            "required": ["license"],
            "properties": {"license": {"type": "object", "required": ["name"]}},
        },
        {"required": ["expression"], "properties": {"expression": {"type": "string"}}},
    ]
}
COMPONENT = {
    "type": "object",
    "required": ["type", "name", "version", "purl", "bom-ref"],
    "additionalProperties": False,
    "properties": {
        "type": {"enum": ["application", "library"]},
        "bom-ref": {"type": "string", "minLength": 1},
        "name": {"type": "string", "minLength": 1},
        "version": {"type": "string", "maxLength": 1024},
        "purl": {"type": "string", "pattern": r"^pkg:pypi/[a-z0-9.-]+@[A-Za-z0-9.%!-]+$"},
        "licenses": {"type": "array", "minItems": 1, "maxItems": 1, "items": LICENCE},
    },
}
BOM = {
    "type": "object",
    "required": ["bomFormat", "specVersion"],
    "additionalProperties": False,
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "serialNumber": {
            "type": "string",
            "pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        },
        "version": {"type": "integer", "minimum": 1},
        "metadata": {"type": "object", "properties": {"component": COMPONENT}},
        "components": {"type": "array", "uniqueItems": True, "items": COMPONENT},
    },
}


def test_it_fits_the_schema() -> None:
    jsonschema.validate(sbom("arl"), BOM)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sbom("arl"), "specVersion": "9"}, BOM)


def test_it_lists_every_package_once() -> None:
    found = sbom("arl")
    names = {re.sub(r"[-_.]+", "-", package.name).lower() for package in distributions()}
    listed = [
        component["purl"].removeprefix("pkg:pypi/").split("@")[0]
        for component in found["components"]
    ]
    assert listed == sorted(names - {"arl"})
    by_name = {component["name"]: component for component in found["components"]}
    assert by_name["numpy"]["version"] == version("numpy")
    assert found["metadata"]["component"]["name"] == "arl"


def test_the_same_environment_gives_the_same_document() -> None:
    assert sbom("arl") == sbom("arl")


def test_licences_as_the_packages_state_them() -> None:
    assert licence_of("arl") == "Apache-2.0"  # License-Expression
    assert licence_of("minio") == "Apache Software License"  # a classifier
