"""The installed Python packages as a software bill of materials, CycloneDX 1.6 in JSON."""

import re
from importlib.metadata import Distribution, distribution, distributions
from typing import Any
from uuid import NAMESPACE_URL, uuid5

_SPDX = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def sbom(root: str) -> dict[str, Any]:
    """Every package of this environment with its version, licence and package address, around the package `root`.

    The same environment gives the same document: there is no time in it, and its serial number is
    that of its content.
    """
    found = {_key(package): package for package in distributions()}
    about = _component(found.pop(_key(distribution(root))))
    components = [_component(found[key]) for key in sorted(found)]
    content = "\n".join(component["purl"] for component in [about, *components])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": {**about, "type": "application"}},
        "components": components,
    }


def licence_of(package: str) -> str | None:
    """The licence that an installed package declares; None where it declares none."""
    declared = _licence(distribution(package))
    name = (
        declared["expression"]
        if "expression" in declared
        else declared.get("license", {}).get("name")
    )
    return None if name is None else str(name)


def _key(package: Distribution) -> str:
    """The normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package.name).lower()


def _component(package: Distribution) -> dict[str, Any]:
    purl = f"pkg:pypi/{_key(package)}@{package.version.replace('+', '%2B')}"
    component = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    licence = _licence(package)
    return {**component, "licenses": [licence]} if licence else component


def _licence(package: Distribution) -> dict[str, Any]:
    """An SPDX expression where the package gives one (PEP 639), else the name in its classifiers or licence field."""
    fields = package.metadata.json
    expression = str(fields.get("license_expression", ""))
    if _SPDX.fullmatch(expression):
        return {"expression": expression}
    classifiers = [str(line) for line in fields.get("classifier", [])]
    names = [
        line.rsplit(" :: ", 1)[1]
        for line in classifiers
        if line.startswith("License :: ") and " :: " in line
    ]
    stated = str(fields.get("license", "")).strip().split("\n")[0]
    name = ", ".join(names) or stated
    return {"license": {"name": name}} if name else {}
