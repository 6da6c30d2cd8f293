"""The OpenAPI 3.1 document of the API, derived from the table of endpoints."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import msgspec

from roovet_webhooks.api.assumed import (
    ASSUMPTIONS,
    ERROR_TYPES,
    MAX_ID_CHARACTERS,
    REQUEST_ID_HEADER,
    RETRY_AFTER_HEADER,
    SUCCESS_STATUS,
)
from roovet_webhooks.api.documented import (
    BASE_URL,
    ERROR_STATUSES,
    IDEMPOTENCY_HEADER,
    RATE_LIMIT_HEADER,
    RATE_REMAINING_HEADER,
    RATE_RESET_HEADER,
    VERSION_HEADER,
    VERSIONS,
    ErrorBody,
)
from roovet_webhooks.api.table import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from roovet_webhooks.api.table import Endpoint

OPENAPI_VERSION = "3.1.0"
_TEMPLATE = "#/components/schemas/{name}"
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
_JSON = "application/json"
_RATE_HEADERS = {
    RATE_LIMIT_HEADER: "Requests that a key may make in a minute.",
    RATE_REMAINING_HEADER: "Requests that are left in this minute.",
    RATE_RESET_HEADER: "When the next minute begins, in Unix seconds.",
}


def openapi_document(*, server: str = BASE_URL, endpoints: Iterable[Endpoint[object]] = ENDPOINTS) -> dict[str, Any]:
    """Return the OpenAPI document as plain data.

    Args:
        server: Where the API is, without a slash at the end.
        endpoints: Rows of the table.
    """
    rows = tuple(endpoints)
    types = [kind for row in rows for kind in (row.answer, row.body) if kind is not None]
    schema_of, components = _schemas([*types, ErrorBody])
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schema_of)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Roovet API",
            "version": VERSIONS[-1],
            "description": "Derived from the documentation of Roovet. What it leaves open is marked as assumed.",
        },
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {str(status): _error(status, schema_of[ErrorBody]) for status in ERROR_STATUSES},
            "headers": {
                **{name: _header(text, {"type": "integer"}) for name, text in _RATE_HEADERS.items()},
                RETRY_AFTER_HEADER: _header("Seconds to wait.", {"type": "integer", "minimum": 0}),
                REQUEST_ID_HEADER: _header("Names this request to support.", {"type": "string"}),
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer rvpk_…"}
            },
        },
    }


def _schemas(types: list[Any]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """Return a schema for each type and the components they refer to, field by the docstrings."""
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    for schema in components.values():
        text = inspect.cleandoc(schema["description"])
        schema["description"] = _plain(text.partition("\n\n")[0])
        for name, meaning in _ATTRIBUTE.findall(text):
            schema["properties"][name]["description"] = _plain(meaning)
        for field in schema["properties"].values():
            if field.get("format") == "decimal":  # msgspec's form of a Decimal is a string; the API's is a number
                field["type"] = "number"
                del field["format"]
    return dict(zip(types, schemas, strict=True)), components


def _plain(meaning: str) -> str:
    return " ".join(meaning.replace("``", "`").split())


def _operation(row: Endpoint[Any], schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    assumed = "\n".join(f"- Assumed: {ASSUMPTIONS[topic]}" for topic in row.assumptions)
    operation: dict[str, Any] = {
        "operationId": row.name,
        "tags": [row.name.partition(".")[0]],
        "summary": row.summary,
        "description": "\n\n".join(part for part in (f"Needs the scope `{row.scope}`.", assumed) if part),
        "security": [{"key": [row.scope]}],
        "parameters": [*_query_parameters(row.query), *_header_parameters(row)],
        "responses": {
            str(SUCCESS_STATUS): {
                "description": "OK",
                "headers": _references((*_RATE_HEADERS, REQUEST_ID_HEADER)),
                "content": {_JSON: {"schema": schema_of[row.answer]}},
            },
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in row.error_statuses},
        },
    }
    if row.body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema_of[row.body]}}}
    return operation


def _query_parameters(query: type[msgspec.Struct] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    # A field that is inherited is field in the docstring of its class.
    lineage = [kind for kind in reversed(query.__mro__) if issubclass(kind, msgspec.Struct) and kind.__struct_fields__]
    properties = [(name, schema) for kind in lineage for name, schema in _properties(kind).items()]
    meanings = {name: schema.pop("description") for name, schema in properties if "description" in schema}
    return [
        {"name": name, "in": "query", "required": False, "description": meanings[name], "schema": schema}
        for name, schema in dict(properties).items()
    ]


def _properties(kind: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = _schemas([kind])[1][kind.__name__]["properties"]
    return properties


def _header_parameters(row: Endpoint[Any]) -> list[dict[str, Any]]:
    pin = {
        "name": VERSION_HEADER,
        "in": "header",
        "required": False,
        "description": "Version pin. Empty is like none.",
        "schema": {"type": "string", "enum": ["", *VERSIONS]},
    }
    key = {
        "name": IDEMPOTENCY_HEADER,
        "in": "header",
        "required": False,
        "description": "Makes a repeated write act once, for about 24 hours.",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARACTERS},
    }
    return [pin, key] if row.takes_idempotency_key else [pin]


def _error(status: int, body: dict[str, Any]) -> dict[str, Any]:
    row = ERROR_STATUSES[status]
    headers = (REQUEST_ID_HEADER, *(_RATE_HEADERS if status != 401 else ()))  # noqa: PLR2004 - an unknown key has no limit
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        headers = (*headers, RETRY_AFTER_HEADER)
    return {
        "description": f"{row.title}. {row.meaning}",
        "headers": _references(headers),
        "content": {
            _JSON: {
                "schema": body,
                "example": {
                    "error": {"type": ERROR_TYPES[status], "code": str(status), "message": row.meaning, "param": None}
                },
            }
        },
    }


def _header(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "schema": schema}


def _references(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
