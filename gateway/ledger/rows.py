"""A `ToolCall` and its row: the same fields in the same words, so that what is read back is what was recorded."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.calls import PHASES, ToolCall

FIELDS: Final = tuple(field for field in msgspec.structs.fields(ToolCall) if field.name != "phases")
"""Those that are one column each, as msgspec describes them."""

COLUMNS: Final = (*(field.name for field in FIELDS), *(f"phase_{phase}_ms" for phase in PHASES))
"""In the order of `to_call`."""


def to_call(row: Sequence[Any]) -> ToolCall:
    """The record whose columns, in the order of `COLUMNS`, are `row`."""
    values = dict(zip(COLUMNS, row, strict=True))
    record = {field.name: values[field.name] for field in FIELDS}
    record["phases"] = {phase: values[f"phase_{phase}_ms"] for phase in PHASES}
    return msgspec.convert(record, ToolCall)
