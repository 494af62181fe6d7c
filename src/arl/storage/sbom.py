"""The installed Python packages as a software bill of materials, CycloneDX 1.6 in JSON."""

import json
import re
from importlib.metadata import Distribution, distribution, distributions
from typing import Any
from uuid import NAMESPACE_URL, uuid5

_SPDX = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # at the start of a requirement
_LICENCE = "License :: "  # prefix of a classifier


def sbom(root: str) -> dict[str, Any]:
    """Every package of this environment with its version, licence and package URL.

    The document holds no time, and its serial number follows from its content, so that the same
    environment gives the same document.

    Args:
        root: the package that the document is about.
    """
    # The library costs 0.2 s, which only a release pays.
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    # Normalised, since requirements write names in other forms than the packages do.
    installed = {_normalised(package.name): package for package in distributions()}
    main = _component(installed.pop(_normalised(root)), ComponentType.APPLICATION)
    libraries = {
        name: _component(package, ComponentType.LIBRARY) for name, package in installed.items()
    }
    bom = Bom()
    bom.metadata.component = main
    bom.components.update(libraries.values())
    names = (_NAME.match(line) for line in distribution(root).requires or [])
    direct = {_normalised(name[0]) for name in names if name}
    bom.register_dependency(main, [libraries[name] for name in sorted(direct & libraries.keys())])
    purls = [str(bom.metadata.component.purl), *sorted(str(item.purl) for item in bom.components)]
    bom.serial_number = uuid5(NAMESPACE_URL, "\n".join(purls))
    content: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library adds the time, which would give each release of one environment another document.
    del content["metadata"]["timestamp"]
    content["components"].sort(key=lambda item: item["purl"].split("@"))
    return content


def licence_of(package: str) -> str | None:
    """The licence that an installed package declares; None where it declares none."""
    return _licence(distribution(package))[1]


def _normalised(name: str) -> str:
    """The name in the form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _component(package: Distribution, kind: Any) -> Any:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from packageurl import PackageURL

    purl = PackageURL("pypi", name=_normalised(package.name), version=package.version)
    is_expression, licence = _licence(package)
    licences = []
    if licence is not None:
        licences = [
            LicenseExpression(licence) if is_expression else DisjunctiveLicense(name=licence)
        ]
    return Component(
        name=package.name,
        version=package.version,
        type=kind,
        purl=purl,
        bom_ref=str(purl),
        licenses=licences,
    )


def _licence(package: Distribution) -> tuple[bool, str | None]:
    """Whether the licence is an SPDX expression (PEP 639), and the licence.

    Without an expression, the classifiers or the licence field name the licence.
    """
    declared = package.metadata.json
    expression = str(declared.get("license_expression", ""))
    # Older packages write free text into this field.
    if _SPDX.fullmatch(expression):
        return True, expression
    classifiers = [str(line) for line in declared.get("classifier", [])]
    names = [line.rsplit(" :: ", 1)[1] for line in classifiers if line.startswith(_LICENCE)]
    stated = str(declared.get("license", "")).strip().split("\n")[0]
    return False, ", ".join(names) or stated or None
