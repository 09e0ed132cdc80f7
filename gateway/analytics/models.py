"""The shapes of the API's answers, as JSON Schema 2020-12: no member more and none less than stands here."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.analytics.export_formats import HEADER
from gateway.calls import PHASES, ErrorType, ToolCall
from gateway.ledger.queries import COLUMN_OF

Schema = dict[str, Any]

_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_INTEGER_OR_NULL: Final[Schema] = {"type": ["integer", "null"]}
_MS: Final[Schema] = {"type": "number", "minimum": 0}
_RATE: Final[Schema] = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_STATUS: Final[Schema] = {"type": "string", "enum": ["success", "error"]}
_ERROR_TYPES: Final = [str(error_type) for error_type in ErrorType]
_ERROR_TYPE_OR_NULL: Final[Schema] = {"enum": [*_ERROR_TYPES, None]}


def _object(description: str = "", /, **members: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
    return {"description": description, **schema} if description else schema


def _list(items: Schema, description: str = "") -> Schema:
    return {"type": "array", "items": items, **({"description": description} if description else {})}


_CALL_REF: Final[Schema] = {"$ref": "#/components/schemas/call"}
_MS_OR_NULL: Final[Schema] = {"type": ["number", "null"], "minimum": 0}
_DURATION: Final = _object(avg=_MS_OR_NULL, p50=_MS_OR_NULL, p95=_MS_OR_NULL, p99=_MS_OR_NULL)
_COUNTS: Final[Mapping[str, Schema]] = {
    "calls": _COUNT,
    "errors": _COUNT,
    "error_rate": _RATE,
    "duration_ms": _DURATION,
}
_TOOL: Final[Mapping[str, Schema]] = {"server_slug": _TEXT, "tool_name": _TEXT}
_KEYS: Final[Mapping[str, Schema]] = dict.fromkeys(COLUMN_OF.values(), _TEXT_OR_NULL)

_CALL: Final[Mapping[str, Schema]] = {
    "call_id": _TEXT,
    "timestamp": _TIME,
    "workspace_id": _TEXT,
    "token_id": _TEXT,
    **_TOOL,
    "status": _STATUS,
    "error_type": _ERROR_TYPE_OR_NULL,
    "error_message": _TEXT_OR_NULL,
    "upstream_response": _TEXT_OR_NULL,
    "duration_ms": _MS,
    "total_ms": _MS,
    "gateway_ms": {"type": "number"},
    "request_bytes": _COUNT,
    "response_bytes": _COUNT,
    "jsonrpc_code": _INTEGER_OR_NULL,
    "http_status": _INTEGER_OR_NULL,
    "transport": _TEXT,
    "protocol_version": _TEXT_OR_NULL,
    "client": {"anyOf": [_object(name=_TEXT, version=_TEXT_OR_NULL), {"type": "null"}]},
    "trace_id": _TEXT,
    "span_id": _TEXT,
}


def _exported() -> Schema:
    """A row of an export: the ledger's columns with their types, and a time for people before them."""
    types = {field.name: field.type for field in msgspec.structs.fields(ToolCall)}
    described = {name: msgspec.json.schema(types.get(name, float)) for name in HEADER[1:]}  # the others are phases
    return _object(
        "A call as exports have it: the ledger's row.",
        **{HEADER[0]: _TIME, **described, "error_type": _ERROR_TYPE_OR_NULL},
    )


_OVERVIEW: Final = _object(
    "The range's totals, and the calls of today, this week and this month.",
    calls=_object(range=_COUNT, today=_COUNT, week=_COUNT, month=_COUNT),
    success_rate=_RATE,
    active_tokens=_COUNT,
    errors=_COUNT,
    duration_ms=_DURATION,
    errors_by_type=_list(_object(error_type={"type": "string", "enum": _ERROR_TYPES}, calls=_COUNT)),
)
_TOOLS: Final = _list(
    _object(**_TOOL, **_COUNTS, last_called_at=_TIME_OR_NULL), "Tools, the most called first, the unused ones with 0."
)
_MEMBERS: Final = _list(
    _object(
        token_id=_TEXT,
        token_name=_TEXT_OR_NULL,
        kind={"enum": ["member", "bot", None]},
        **_COUNTS,
        last_called_at=_TIME_OR_NULL,
        top_tools=_list(_object(**_TOOL, calls=_COUNT)),
    ),
    "Members and bots, those who called most first, the silent ones with 0.",
)
_SERVERS: Final = _list(
    _object(server_slug=_TEXT, **_COUNTS, up={"type": ["boolean", "null"]}),
    "Servers, the most called first, the unused ones with 0.",
)
_USAGE: Final = _object(
    "The calendar month's calls (UTC) against the plan's limit.",
    tier=_TEXT,
    period={"type": "string", "pattern": r"^\d{4}-\d{2}$"},
    usage=_object(
        mcp_proxy_calls=_object(
            used=_COUNT,
            limit={"type": ["integer", "null"], "minimum": 0},
            remaining={"type": ["integer", "null"], "minimum": 0},
            projected=_COUNT,
            exhausted_on={"type": ["string", "null"], "format": "date"},
        )
    ),
)

SCHEMAS: Final[Mapping[str, Schema]] = {
    "everything": _object(
        "All views of one range.",
        workspace_id=_TEXT,
        plan=_TEXT,
        range=_object(**{"from": _TIME, "to": _TIME, "tz": _TEXT, "clamped": {"type": "boolean"}}),
        fresh_as_of=_TIME_OR_NULL,
        overview=_OVERVIEW,
        tools=_TOOLS,
        members=_MEMBERS,
        servers=_SERVERS,
        usage=_USAGE,
    ),
    "overview": _OVERVIEW,
    "tools": _TOOLS,
    "members": _MEMBERS,
    "servers": _SERVERS,
    "usage": _USAGE,
    "groups": _object(
        "Counts and durations of every combination that occurs.",
        by=_list({"type": "string", "enum": list(COLUMN_OF)}),
        groups=_list(
            {
                "type": "object",
                "properties": {**_KEYS, "calls": _COUNT, "errors": _COUNT, "duration_ms": _DURATION},
                "required": ["calls", "errors", "duration_ms"],
                "additionalProperties": False,
            }
        ),
    ),
    "timeline": _object(
        "Counts in buckets, each up to where the next begins; whole days are days of the zone `tz`.",
        step_s={"type": "integer", "minimum": 1},
        buckets=_list(_TIME),
        series=_list(
            {
                "type": "object",
                "properties": {**_KEYS, "calls": _list(_COUNT), "errors": _list(_COUNT)},
                "required": ["calls", "errors"],
                "additionalProperties": False,
            }
        ),
    ),
    "calls": _object("A page of calls, newest first.", calls=_list(_CALL_REF), next_cursor=_TEXT_OR_NULL),
    "call": _object("A call as pages and the live stream have it.", **_CALL),
    "exported_call": _exported(),
    "calls_single": _object(
        "One call with all that is known of it, if the filters let it through, whatever the range is.",
        **_CALL,
        phases=_list(_object(phase={"type": "string", "enum": list(PHASES)}, start_ms=_MS, duration_ms=_MS)),
        upstream_address=_TEXT_OR_NULL,
        upstream_span_id=_TEXT,
        parent_span_id=_TEXT_OR_NULL,
        session_id=_TEXT_OR_NULL,
        jsonrpc_id=_TEXT_OR_NULL,
        replica=_TEXT,
    ),
    "refusal": {
        "description": "Why there is no answer; what parameter is mistaken, and what it may be.",
        "type": "object",
        "properties": {"error": _TEXT, "parameter": _TEXT, "allowed": _list(_TEXT)},
        "required": ["error"],
        "additionalProperties": False,
    },
}
