"""The API's description, OpenAPI 3.1, from the tables that the routes are made of."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway import __version__
from gateway.analytics.export import MAX_ROWS
from gateway.analytics.export_formats import FORMATS
from gateway.analytics.models import SCHEMAS
from gateway.analytics.parameters import (
    COMMON,
    DEFAULT_LIMIT,
    DEFAULT_PERIOD,
    LIVE_PARAMETERS,
    MAX_LAST,
    PERIODS,
    STATUSES,
)
from gateway.analytics.periods import LENGTH
from gateway.calls import ErrorType
from gateway.ledger.queries import COLUMN_OF

WORKSPACE: Final = "/api/community/mcp/workspaces/{workspace_id}"
PATH: Final = "/api/openapi.json"

_MOMENT: Final[Mapping[str, Any]] = {
    "type": "string",
    "anyOf": [{"format": "date-time"}, {"pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$"}],
}
_DIMENSION: Final[Mapping[str, Any]] = {"type": "string", "enum": list(COLUMN_OF)}
_CLOSED: Final[Mapping[str, Iterable[str]]] = {"status": STATUSES, "error_type": ErrorType}
"""Filters whose values are known; the others' are names."""

_QUERY: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "period": (
        "A range that ends now: `today`, `week`, `month`, or a length. Excludes `from` and `to`.",
        {
            "type": "string",
            "pattern": f"^(today|week|month|{LENGTH})$",
            "default": DEFAULT_PERIOD,
            "examples": list(PERIODS),
        },
    ),
    "from": ("The range's begin, included: RFC 3339, or seconds since the epoch.", _MOMENT),
    "to": ("The range's end, excluded; now if it is not given. Needs `from`.", _MOMENT),
    "tz": (
        "An IANA zone: where `today`, `week` and `month` begin, and the days and weeks of a timeline.",
        {"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]},
    ),
    "by": ("What the series are of.", {"type": "string", "enum": ["none", *COLUMN_OF], "default": "none"}),
    "step": (
        "A bucket's length, 366 days at most; by default what a chart can show. Whole days are days of `tz`.",
        {"type": "string", "pattern": f"^{LENGTH}?$", "examples": ["1h", "1d"]},
    ),
    "cursor": (
        "`next_cursor` of the page before. Its range goes before `period`, `from` and `to`, which may be repeated.",
        {"type": "string"},
    ),
    "format": ("The file's.", {"type": "string", "enum": list(FORMATS)}),
    "last": ("Calls of the past to begin with.", {"type": "integer", "minimum": 0, "maximum": MAX_LAST, "default": 0}),
}
_BY_SEVERAL: Final[Mapping[str, Any]] = {
    "name": "by",
    "in": "query",
    "description": "What to group by, joined by commas.",
    "required": True,
    "explode": False,
    "schema": {"type": "array", "items": _DIMENSION, "uniqueItems": True},
}

_REFUSALS: Final[Mapping[str, str]] = {
    "400": "A mistake in a parameter; `allowed` has what would be none.",
    "401": "No bearer, or one that does not verify.",
    "403": "The bearer does not name this workspace.",
    "404": "There is no such workspace, or no such call that the filters let through.",
    "405": "The method: reading is done by GET, or by HEAD, which answers the same without a body.",
    "406": "The Accept header excludes what the answer is.",
    "429": "Too much at once: see Retry-After, in seconds.",
    "503": "The ledger is away, or the configuration has no section `api`: see Retry-After, in seconds.",
}
_RETRY_AFTER: Final = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "401": {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    "405": {"Allow": {"required": True, "schema": {"type": "string"}}},
    "429": _RETRY_AFTER,
    "503": _RETRY_AFTER,
}
_STREAM: Final = (
    "Server-Sent Events. `event: call` has a call in `data:` (the schema `call`), `event: lag` an object whose "
    "`skipped` says how many calls are missing, null if nobody can count them. `id:` is a place from which the same "
    "replica goes on. A comment comes every 15 seconds. The stream ends when its bearer is good no more."
)
_EVENT: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": _STREAM,
    "properties": {
        "event": {"type": "string", "enum": ["call", "lag"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string"},
    },
    "required": ["event", "data"],
}
"""One event of the stream, by the names of its fields."""
_FILES: Final[Mapping[str, str]] = {
    "csv": "RFC 4180 in UTF-8, with a header: the members of the schema `exported_call`.",
    "jsonl": "In each line an object of the schema `exported_call`.",
    "parquet": "A column for each member of the schema `exported_call`; `timestamp` is Parquet's, in UTC.",
}


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
            "description": (
                "Every path takes HEAD as well, and answers it with the headers of GET; an export and a stream, whose "
                "length nobody knows, without Content-Length. A slash at the end of a path changes nothing."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": {
            **paths,
            f"{WORKSPACE}/analytics/export": _get(
                "export",
                "The range's calls as a file, oldest first.",
                _parameters((*COMMON, "format"), MAX_ROWS),
                {file_format.media_type: _text(_FILES[name]) for name, file_format in FORMATS.items()},
                headers={"Content-Disposition": {"required": True, "schema": {"type": "string"}}},
            ),
            f"{WORKSPACE}/logs/stream": _get(
                "stream",
                "The workspace's calls as they happen.",
                [*_parameters(LIVE_PARAMETERS, MAX_LAST), _LAST_EVENT_ID],
                {"text/event-stream": {"schema": _EVENT}},
                refusals=[status for status in _REFUSALS if status != "429"],
            ),
            PATH: {"get": _DESCRIPTION},
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {status: _refusal(status) for status in _REFUSALS},
            "schemas": SCHEMAS,
        },
    }


def _operation(path: str, parameters: tuple[str, ...], most: int) -> dict[str, Any]:
    name = path.strip("/").replace("/{call_id}", "_single") or "everything"
    described = _parameters(parameters, most)
    if name == "groups":
        described = [_BY_SEVERAL if one["name"] == "by" else one for one in described]
    if "{call_id}" in path:
        described.append({"name": "call_id", "in": "path", "required": True, "schema": {"type": "string"}})
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return _get(name, SCHEMAS[name]["description"], described, content)


def _get(
    name: str,
    summary: str,
    parameters: Iterable[Mapping[str, Any]],
    content: Mapping[str, Any],
    *,
    refusals: Iterable[str] = tuple(_REFUSALS),
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    workspace = {"name": "workspace_id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": [{**workspace, "description": "The workspace's slug."}, *parameters],
            "responses": {
                "200": {"description": "OK", "headers": headers or {}, "content": dict(content)},
                **_refused(refusals),
            },
        }
    }


def _parameters(names: Iterable[str], most: int) -> list[Mapping[str, Any]]:
    return [_parameter(name, most) for name in names]


def _parameter(name: str, most: int) -> Mapping[str, Any]:
    columns = {str(dimension): column for dimension, column in COLUMN_OF.items()}
    if name in columns:
        values = {"enum": [str(value) for value in _CLOSED[name]]} if name in _CLOSED else {"minLength": 1}
        description = f"Only calls with this `{columns[name]}`; repeated, any of them."
        schema: Mapping[str, Any] = {"type": "array", "items": {"type": "string", **values}}
    elif name == "limit":
        description = (
            f"The most of a list, of which there are {DEFAULT_LIMIT} by default where it is a top-N or a page."
        )
        schema = {"type": "integer", "minimum": 1, "maximum": most}
    else:
        description, schema = _QUERY[name]
    return {
        "name": name,
        "in": "query",
        "description": description,
        "required": name == "format",
        "schema": dict(schema),
    }


_LAST_EVENT_ID: Final[Mapping[str, Any]] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id:` after which to go on. One of another replica begins at the end, with `event: lag`.",
    "schema": {"type": "string"},
}


def _text(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "description": description}}


def _refused(statuses: Iterable[str]) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _refusal(status: str) -> dict[str, Any]:
    return {
        "description": _REFUSALS[status],
        "headers": dict(_HEADERS.get(status, {})),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/refusal"}}},
    }


_DESCRIPTION: Final[Mapping[str, Any]] = {
    "operationId": "openapi",
    "summary": "This description.",
    "security": [],
    "responses": {
        "200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}},
        **_refused(("405", "406")),
    },
}
