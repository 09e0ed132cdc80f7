"""The API's description, OpenAPI 3.1: schemas from the models, paths from the table of the routes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from gateway import __version__
from gateway.analytics.export import FORMATS, HEADER, MAX_ROWS
from gateway.analytics.models import CallSummary, ErrorBody, StreamLag, Time
from gateway.analytics.parameters import (
    CLOSED_VALUES,
    COMMON,
    DEFAULT_LIMIT,
    DEFAULT_PERIOD,
    LIVE_PARAMETERS,
    MAX_LAST,
    MAX_LIMIT,
    PERIODS,
)
from gateway.analytics.periods import LENGTH
from gateway.analytics.query import AnalyticsQuery
from gateway.calls import COLUMN_OF, ToolCall
from gateway.ledger import Snapshot

WORKSPACE: Final = "/api/community/mcp/workspaces/{workspace_id}"
PATH: Final = "/api/openapi.json"


class ViewRoute(NamedTuple):
    """How one path answers, and the parameters that it takes."""

    answer: Callable[[Snapshot, AnalyticsQuery], Any]
    model: Any
    """The type of the answer."""
    parameters: tuple[str, ...] = COMMON
    max_limit: int = MAX_LIMIT
    summary: str = ""
    """The model's docstring if it is not given."""


_TYPES: Final = {one.name: one.type for one in msgspec.structs.fields(ToolCall)}
ExportedCall: Final = msgspec.defstruct(
    "ExportedCall",
    [(HEADER[0], Time), *((name, _TYPES.get(name, float)) for name in HEADER[1:])],  # what is no field is a phase
    namespace={"__doc__": "A call as exports have it: the ledger's row."},
)

_MOMENT: Final[Mapping[str, Any]] = {
    "type": "string",
    "anyOf": [{"format": "date-time"}, {"pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$"}],
}

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
    "to": ("The range's end, excluded; now by default. Needs `from`.", _MOMENT),
    "tz": (
        "An IANA zone: where `today`, `week` and `month` begin, and the days and weeks of a timeline.",
        {"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]},
    ),
    "by": ("One series for each value.", {"type": "string", "enum": ["none", *COLUMN_OF], "default": "none"}),
    "step": (
        "A bucket's length, 366 days at most; by default what a chart can show. Whole days are days of `tz`.",
        {"type": "string", "pattern": f"^{LENGTH}?$", "examples": ["1h", "1d"]},
    ),
    "cursor": (
        "`next_cursor` of the page before. Its range replaces `period`, `from` and `to`, which may be repeated.",
        {"type": "string"},
    ),
    "format": ("The file's format.", {"type": "string", "enum": list(FORMATS)}),
    "last": ("Past calls to begin with.", {"type": "integer", "minimum": 0, "maximum": MAX_LAST, "default": 0}),
}
_BY_SEVERAL: Final[Mapping[str, Any]] = {
    "name": "by",
    "in": "query",
    "description": "What to group by, joined by commas.",
    "required": True,
    "explode": False,
    "schema": {"type": "array", "items": {"type": "string", "enum": list(COLUMN_OF)}, "uniqueItems": True},
}

_RETRY_AFTER: Final = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
_TEXT_HEADER: Final = {"required": True, "schema": {"type": "string"}}
_ERRORS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "400": ("A mistake in a parameter; `allowed` has what would be correct.", {}),
    "401": ("The bearer token is missing or not valid.", {"WWW-Authenticate": _TEXT_HEADER}),
    "403": ("The bearer token does not name this workspace.", {}),
    "404": ("There is no such workspace, or no such call that the filters let through.", {}),
    "405": (
        "The method is neither GET nor HEAD. HEAD answers the same as GET, without a body.",
        {"Allow": _TEXT_HEADER},
    ),
    "406": ("The Accept header excludes the media type of the answer.", {}),
    "429": ("Too much at once: see Retry-After, in seconds.", _RETRY_AFTER),
    "503": (
        "The ledger is away, or the configuration has no section `api`: see Retry-After, in seconds.",
        _RETRY_AFTER,
    ),
}
"""The meaning of each error status, and the headers that come with it."""

_EVENT: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": (
        "Server-Sent Events. `event: call` has a call in `data:` (the schema `CallSummary`), `event: lag` the schema "
        "`StreamLag`. `id:` is a position from which the same replica goes on. A comment comes every 15 seconds. The "
        "stream ends when its bearer token expires."
    ),
    "properties": {
        "event": {"type": "string", "enum": ["call", "lag"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string"},
    },
    "required": ["event", "data"],
}
"""One event of the stream, by the names of its fields."""
_FILES: Final[Mapping[str, str]] = {
    "csv": "RFC 4180 in UTF-8, with a header: the members of the schema `ExportedCall`.",
    "jsonl": "In each line an object of the schema `ExportedCall`.",
    "parquet": "A column for each member of the schema `ExportedCall`; `timestamp` is Parquet's, in UTC.",
}
_LAST_EVENT_ID: Final[Mapping[str, Any]] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id:` after which to go on. One of another replica begins at the end, with `event: lag`.",
    "schema": {"type": "string"},
}
_INFO: Final[Mapping[str, Any]] = {
    "title": "Callscope analytics",
    "version": __version__,
    "summary": "What tools are called, by whom, how often, how fast, and why one failed.",
    "description": (
        "Every path also takes HEAD, which answers with the headers of GET; an export and a stream, whose length is "
        "not known, answer it without Content-Length. A slash at the end of a path changes nothing."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}


def document(views: Mapping[str, ViewRoute]) -> dict[str, Any]:
    """The description; `views` are the paths below `…/analytics`."""
    models = [view.model for view in views.values()]
    answers, schemas = msgspec.json.schema_components(
        [*models, CallSummary, StreamLag, ErrorBody, ExportedCall], ref_template="#/components/schemas/{name}"
    )
    for schema in schemas.values():
        if schema.get("type") == "object":
            schema["additionalProperties"] = False  # no member is served that is not described
    files = {
        file_format.media_type: {"schema": {"type": "string", "description": _FILES[name]}}
        for name, file_format in FORMATS.items()
    }
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "security": [{"bearer": []}],
        "paths": {
            **{
                f"{WORKSPACE}/analytics{path}": _view(path, view, answer)
                for (path, view), answer in zip(views.items(), answers, strict=False)
            },
            f"{WORKSPACE}/analytics/export": _get(
                "export",
                "The range's calls as a file, oldest first.",
                _parameters((*COMMON, "format"), MAX_ROWS),
                files,
                headers={"Content-Disposition": _TEXT_HEADER},
            ),
            f"{WORKSPACE}/logs/stream": _get(
                "stream",
                "The workspace's calls as they happen.",
                [*_parameters(LIVE_PARAMETERS, MAX_LAST), _LAST_EVENT_ID],
                {"text/event-stream": {"schema": _EVENT}},
                errors=[status for status in _ERRORS if status != "429"],
            ),
            PATH: {
                "get": {
                    "operationId": "openapi",
                    "summary": "This description.",
                    "security": [],
                    "responses": _responses({"application/json": {"schema": {"type": "object"}}}, ("405", "406")),
                }
            },
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {
                status: {
                    "description": description,
                    "headers": headers,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
                }
                for status, (description, headers) in _ERRORS.items()
            },
            "schemas": schemas,
        },
    }


def _view(path: str, view: ViewRoute, answer: Mapping[str, Any]) -> dict[str, Any]:
    name = path.strip("/").replace("/{call_id}", "_single") or "everything"
    parameters = _parameters(view.parameters, view.max_limit)
    if name == "groups":
        parameters = [_BY_SEVERAL if one["name"] == "by" else one for one in parameters]
    if "{call_id}" in path:
        parameters.append(_path_parameter("call_id"))
    return _get(name, view.summary or view.model.__doc__, parameters, {"application/json": {"schema": answer}})


def _get(
    name: str,
    summary: str,
    parameters: Iterable[Mapping[str, Any]],
    content: Mapping[str, Any],
    *,
    errors: Iterable[str] = tuple(_ERRORS),
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": [{**_path_parameter("workspace_id"), "description": "The workspace's slug."}, *parameters],
            "responses": _responses(content, errors, headers),
        }
    }


def _responses(
    content: Mapping[str, Any], errors: Iterable[str], headers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "200": {"description": "OK", "headers": headers or {}, "content": content},
        **{status: {"$ref": f"#/components/responses/{status}"} for status in errors},
    }


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _parameters(names: Iterable[str], max_limit: int) -> list[Mapping[str, Any]]:
    return [_parameter(name, max_limit) for name in names]


def _parameter(name: str, max_limit: int) -> Mapping[str, Any]:
    columns = {str(dimension): column for dimension, column in COLUMN_OF.items()}
    if name in columns:
        description = f"Only calls with this `{columns[name]}`; repeated, any of them."
        values = {"enum": list(CLOSED_VALUES[name])} if name in CLOSED_VALUES else {"minLength": 1}
        schema: Mapping[str, Any] = {"type": "array", "items": {"type": "string", **values}}
    elif name == "limit":
        description = f"The most of a list; {DEFAULT_LIMIT} by default where it is a top-N or a page."
        schema = {"type": "integer", "minimum": 1, "maximum": max_limit}
    else:
        description, schema = _QUERY[name]
    required = name == "format"
    return {"name": name, "in": "query", "description": description, "required": required, "schema": schema}
