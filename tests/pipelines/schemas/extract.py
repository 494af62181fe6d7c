"""Make the JSON schemas beside this file from the published definitions of Trainer and JobSet.

python tests/pipelines/schemas/extract.py trainer-v2.2.0 trainjobs.yaml trainingruntimes.yaml ...

Descriptions are left out. A pod's spec, which takes most of a definition, becomes an object of any
content: the tests validate it against the schema of Kubernetes itself. Unknown fields become
errors, unlike on a server, which drops them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

_POD_FIELDS = {"containers", "initContainers", "volumes"}
_KEPT = {"type", "enum", "required", "properties", "items", "additionalProperties", "minimum"}
_KEPT |= {"maxItems", "minItems", "minLength", "maxLength", "pattern", "format", "anyOf"}


def stripped(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without descriptions, whose objects take no unknown fields."""
    properties = schema.get("properties", {})
    if properties.keys() >= _POD_FIELDS:
        return {"type": "object", "$comment": "a pod's spec"}
    result = {key: value for key, value in schema.items() if key in _KEPT}
    if properties:
        result["properties"] = {name: stripped(value) for name, value in properties.items()}
        result.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), dict):
        result["items"] = stripped(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = stripped(schema["additionalProperties"])
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    return result


def main(release: str, *files: str) -> None:
    """Write one JSON file for each definition."""
    for file in files:
        definition = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        version = definition["spec"]["versions"][0]
        schema = stripped(version["schema"]["openAPIV3Schema"])
        # the server fills in the metadata's schema itself
        schema["properties"]["metadata"] = {"type": "object"}
        kind = definition["spec"]["names"]["kind"]
        group = definition["spec"]["group"]
        project = "kubernetes-sigs/jobset" if "jobset" in group else "kubeflow/trainer"
        head = {"$comment": f"{project} {release}, Apache-2.0, {Path(file).name}; see extract.py"}
        target = Path(__file__).with_name(f"{kind.lower()}-{release}.json")
        target.write_text(json.dumps(head | schema, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
