"""The API's description, OpenAPI 3.1, from the tables that the routes are made of."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway import __version__
from gateway.analytics.answers import SCHEMAS
from gateway.analytics.export import MAX_ROWS
from gateway.analytics.formats import FORMATS
from gateway.analytics.parameters import COMMON, DEFAULT_LIMIT, DEFAULT_PERIOD, STATUSES
from gateway.ledger.queries import COLUMN_OF

WORKSPACE: Final = "/api/community/mcp/workspaces/{workspace_id}"
PATH: Final = "/api/openapi.json"
MAX_LAST: Final = 1000
"""Calls that the live stream replays at most."""

_LENGTH: Final = "[1-9][0-9]{0,5}[smhdw]"
_MOMENT: Final[Mapping[str, Any]] = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0}]
}
_DIMENSION: Final = "(" + "|".join(COLUMN_OF) + ")"

_QUERY: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "period": (
        "A range that ends now: `today`, `week`, `month`, or a length. Excludes `from` and `to`.",
        {"type": "string", "pattern": f"^(today|week|month|{_LENGTH})$", "default": DEFAULT_PERIOD},
    ),
    "from": ("The range's begin, included: RFC 3339, or seconds since the epoch.", _MOMENT),
    "to": ("The range's end, excluded. Needs `from`.", _MOMENT),
    "tz": ("An IANA zone: where `today`, `week` and `month` begin.", {"type": "string", "default": "UTC"}),
    "by": ("Dimensions, joined by commas.", {"type": "string", "pattern": f"^{_DIMENSION}(,{_DIMENSION})*$"}),
    "step": ("The length of a bucket.", {"type": "string", "pattern": f"^{_LENGTH}$"}),
    "cursor": ("`next_cursor` of the page before.", {"type": "string"}),
    "format": ("The file's.", {"type": "string", "enum": list(FORMATS)}),
    "last": ("Calls of the past to begin with.", {"type": "integer", "minimum": 0, "maximum": MAX_LAST}),
}
_REQUIRED: Final = ("format",)

_REFUSALS: Final[Mapping[str, str]] = {
    "400": "A mistake in a parameter; `allowed` has what would be none.",
    "401": "No bearer, or one that does not verify.",
    "403": "The bearer does not name this workspace.",
    "404": "There is no such workspace, or no such call.",
    "405": "Reading is done by GET and HEAD.",
    "406": "The Accept header excludes what the answer is.",
    "429": "Too much at once: see Retry-After, in seconds.",
    "503": "The ledger is away, or the configuration has no section `api`: see Retry-After, in seconds.",
}
_WITH_RETRY: Final = ("429", "503")


def document(views: Mapping[str, tuple[tuple[str, ...], int]]) -> dict[str, Any]:
    """The description; `views` are the paths below `…/analytics`, with their parameters and the most of `limit`."""
    paths = {
        f"{WORKSPACE}/analytics{path}": _operation(path, parameters, most) for path, (parameters, most) in views.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Callscope analytics",
            "version": __version__,
            "summary": "What tools are called, by whom, how often, how fast, and why one failed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": {
            **paths,
            f"{WORKSPACE}/analytics/export": _get(
                "export",
                "The range's calls as a file, oldest first.",
                _parameters((*COMMON, "format"), MAX_ROWS),
                {file_format.media_type: _file(name) for name, file_format in FORMATS.items()},
            ),
            f"{WORKSPACE}/logs/stream": _get(
                "stream",
                "The workspace's calls as they happen, as Server-Sent Events: `event: call`, `data:` a call.",
                [*_parameters((*COLUMN_OF, "last"), 0), _last_event_id()],
                {"text/event-stream": {"schema": {"type": "string"}}},
                refusals=[status for status in _REFUSALS if status not in ("406", "429")],
            ),
            PATH: {
                "get": {
                    "operationId": "openapi",
                    "summary": "This description.",
                    "security": [],
                    "responses": {
                        "200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}
                    },
                }
            },
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {status: _refusal(status) for status in _REFUSALS},
            "schemas": SCHEMAS,
        },
    }


def _operation(path: str, parameters: tuple[str, ...], most: int) -> dict[str, Any]:
    name = path.strip("/").replace("/{call_id}", "_single") or "everything"
    schema = SCHEMAS[name]
    described = _parameters(parameters, most)
    if "{call_id}" in path:
        described.append({"name": "call_id", "in": "path", "required": True, "schema": {"type": "string"}})
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return _get(name, schema["description"], described, content)


def _get(
    name: str,
    summary: str,
    parameters: Iterable[Mapping[str, Any]],
    content: Mapping[str, Any],
    *,
    refusals: Iterable[str] = tuple(_REFUSALS),
) -> dict[str, Any]:
    workspace = {"name": "workspace_id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": [{**workspace, "description": "The workspace's slug."}, *parameters],
            "responses": {
                "200": {"description": "OK", "content": dict(content)},
                **{status: {"$ref": f"#/components/responses/{status}"} for status in refusals},
            },
        }
    }


def _parameters(names: Iterable[str], most: int) -> list[dict[str, Any]]:
    return [_parameter(name, most) for name in names]


def _parameter(name: str, most: int) -> dict[str, Any]:
    if name in COLUMN_OF:
        values: dict[str, Any] = {"type": "string", "enum": list(STATUSES)} if name == "status" else {"type": "string"}
        description = f"Only calls with this `{COLUMN_OF[name]}`; repeated, any of them."  # type: ignore[index]  # it is in it
        schema: Mapping[str, Any] = {"type": "array", "items": values}
    elif name == "limit":
        description = f"The most of a list, of which there are {DEFAULT_LIMIT} by default where it is a top-N."
        schema = {"type": "integer", "minimum": 1, "maximum": most}
    else:
        description, schema = _QUERY[name]
    return {
        "name": name,
        "in": "query",
        "description": description,
        "required": name in _REQUIRED,
        "schema": dict(schema),
    }


def _last_event_id() -> dict[str, Any]:
    description = "The `id:` after which to go on."
    return {"name": "Last-Event-ID", "in": "header", "description": description, "schema": {"type": "string"}}


def _file(name: str) -> dict[str, Any]:
    return {} if name == "parquet" else {"schema": {"type": "string"}}


def _refusal(status: str) -> dict[str, Any]:
    retry = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
    return {
        "description": _REFUSALS[status],
        **({"headers": retry} if status in _WITH_RETRY else {}),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/refusal"}}},
    }
