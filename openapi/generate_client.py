"""Writes the client's models from openapi.json: `make openapi` runs it after the document has been written."""

import json
import sys
from pathlib import Path
from typing import Any

from datamodel_code_generator import DataModelType, Formatter, InputFileType, LiteralType, PythonVersion, generate

FOLDER = Path(__file__).parent
MODELS = FOLDER / "timeripple_client" / "models.py"
# What the client sends and gets; all else follows from these.
_ROOTS = ("GenerateRequest", "Job", "JobPage", "EstimateAnswer", "ModelList", "Problem")
# The server checks these and says what is wrong; a client that did too would refuse what a newer server takes.
_DROPPED = {
    *("title", "additionalProperties", "minimum", "maximum", "minLength", "maxLength", "maxItems", "pattern"),
    *("examples", "example"),
}


def write_models(path: Path) -> None:
    """Generate the module."""
    document = json.loads((FOLDER / "openapi.json").read_text(encoding="utf-8"))
    generate(
        json.dumps(_reduced(document)),
        input_file_type=InputFileType.OpenAPI,
        output=path,
        output_model_type=DataModelType.PydanticV2BaseModel,
        target_python_version=PythonVersion.PY_311,
        use_standard_collections=True,
        use_union_operator=True,
        enum_field_as_literal=LiteralType.All,
        use_schema_description=True,
        # What has a default is there in every answer: not "or null" for that.
        strict_nullable=True,
        collapse_root_models=True,
        disable_timestamp=True,
        settings_path=FOLDER,
        custom_file_header='"""Generated from openapi.json by `make openapi`; see there for what every field means."""',
        formatters=[Formatter.RUFF_FORMAT],
    )


def _reduced(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the schemas that the client needs and no paths."""
    schemas = document["components"]["schemas"]
    wanted, left = {}, list(_ROOTS)
    while left:
        name = left.pop()
        if name not in wanted:
            wanted[name] = _plain(schemas[name])
            left += _references(schemas[name])
    return document | {"paths": {}, "webhooks": {}, "components": {"schemas": dict(sorted(wanted.items()))}}


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if name not in _DROPPED}
    # Fields may be called like keywords: only values of `properties` are schemas.
    return {
        name: {field: _plain(schema) for field, schema in value.items()} if name == "properties" else _plain(value)
        for name, value in kept.items()
    }


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
    return own + [name for value in node.values() for name in _references(value)]


if __name__ == "__main__":
    write_models(Path(sys.argv[1]) if len(sys.argv) > 1 else MODELS)
