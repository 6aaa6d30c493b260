"""A Kubernetes API server's reading of a custom resource definition: defaults first, unknown fields refused.

Not read: CEL rules (`x-kubernetes-validations`) and the operator's own checks.
"""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Schema = dict[str, Any]


def load(file: Path, version: str = "v1") -> Schema:
    """The openAPIV3Schema of one version."""
    definition = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == version)
    return strict(schema, top=True)


def strict(schema: Schema, top: bool = False) -> Schema:
    """As JSON schema: closed objects, `int-or-string`. A resource's own metadata is Kubernetes', not the CRD's."""
    made = {key: value for key, value in schema.items() if key not in ("description", "format")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        made["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if top:
            made["properties"]["metadata"] = {"type": "object", "required": ["name"]}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = strict(schema["items"])
    return made


def with_defaults(schema: Schema, value: Any) -> Any:
    """A copy with the schema's defaults filled in, inside what is there."""
    value = copy.deepcopy(value)
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = copy.deepcopy(part["default"])
            if name in value:
                value[name] = with_defaults(part, value[name])
    if isinstance(value, list) and "items" in schema:
        value = [with_defaults(schema["items"], item) for item in value]
    return value


def faults(schema: Schema, resource: Any) -> list[str]:
    """`path: what is wrong` of everything that an API server would refuse."""
    validator = jsonschema.Draft202012Validator(schema)
    found = validator.iter_errors(with_defaults(schema, resource))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]
