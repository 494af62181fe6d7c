"""The bill of materials against the rules of CycloneDX 1.6 that concern it, and against the
environment.
"""

import json
import re
from importlib.metadata import distributions, version

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from arl.storage.sbom import licence_of, sbom


def test_it_fits_the_schema() -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(sbom("arl"))) is None
    assert validator.validate_str(json.dumps({**sbom("arl"), "components": [{}]})) is not None


def test_the_root_names_what_it_depends_on() -> None:
    content = sbom("arl")
    root = content["metadata"]["component"]["bom-ref"]
    [direct] = [item["dependsOn"] for item in content["dependencies"] if item["ref"] == root]
    assert f"pkg:pypi/numpy@{version('numpy')}" in direct


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
