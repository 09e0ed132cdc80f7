"""A `ToolCall` and its row: the same fields in the same words, so that what is read back is what was recorded."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from gateway.calls import PHASES, ToolCall

FIELDS: Final = tuple(field for field in msgspec.structs.fields(ToolCall) if field.name != "phases")
"""Those that are one column each, as msgspec describes them."""

COLUMNS: Final = (*(field.name for field in FIELDS), *(f"phase_{phase}_ms" for phase in PHASES))
"""In the order of `to_call`."""

_NUL: Final = "\0"
_INSTEAD: Final = "\N{REPLACEMENT CHARACTER}"
_ENCODED_NUL: Final = rb"\u0000"

MIN_BIGINT: Final = -(2**63)
MAX_BIGINT: Final = 2**63 - 1

encode: Final = msgspec.json.Encoder().encode
to_row: Final[Callable[[ToolCall], tuple[Any, ...]]] = attrgetter(
    *(field.name for field in FIELDS), *(f"phases.{phase}" for phase in PHASES)
)
"""The record's columns, in the order of `COLUMNS`."""


def to_call(row: Sequence[Any]) -> ToolCall:
    """The record whose columns, in the order of `COLUMNS`, are `row`."""
    values = dict(zip(COLUMNS, row, strict=True))
    record = {field.name: values[field.name] for field in FIELDS}
    record["phases"] = {phase: values[f"phase_{phase}_ms"] for phase in PHASES}
    return msgspec.convert(record, ToolCall)


def is_storable(text: str) -> bool:
    """Whether any ledger could have this text: without U+0000, and without half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return _NUL not in text


def storable(call: ToolCall) -> ToolCall:
    """The call as every ledger can hold it: PostgreSQL has no U+0000 in a text, and no integer beyond 64 bits.

    Relays write no U+0000 into names and messages; a journal that an older one wrote may have it.
    """
    code = call.jsonrpc_code
    changes: dict[str, Any] = {}
    if code is not None and not MIN_BIGINT <= code <= MAX_BIGINT:
        changes["jsonrpc_code"] = None
    if _ENCODED_NUL in encode(call):
        texts = {field.name: getattr(call, field.name) for field in FIELDS}
        changes |= {
            name: text.replace(_NUL, _INSTEAD) for name, text in texts.items() if isinstance(text, str) and _NUL in text
        }
    return msgspec.structs.replace(call, **changes) if changes else call
