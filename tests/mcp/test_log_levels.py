"""Which log messages go on to a client."""

from typing import Any

import pytest
from msgspec import Raw

from gateway.mcp import jsonrpc, log_levels
from gateway.mcp.jsonrpc import InvalidParamsError
from gateway.mcp.log_levels import LEVELS

LEVEL = "io.modelcontextprotocol/logLevel"


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_read_from_a_modern_request_and_from_a_legacy_one(level: str) -> None:
    assert log_levels.level_of_request({LEVEL: jsonrpc.raw(level)}) == level
    assert log_levels.level_to_set({"level": jsonrpc.raw(level)}) == level
    assert log_levels.level_of_request(log_levels.with_level({}, level)) == level


def test_a_request_that_names_no_level_wants_no_message() -> None:
    assert log_levels.level_of_request({}) is None
    assert log_levels.with_level({"a": Raw(b"1")}, None) == {"a": Raw(b"1")}
    assert not log_levels.passes({"level": jsonrpc.raw("emergency")}, None)


@pytest.mark.parametrize("value", ["loud", "Error", "", 3, None])
def test_a_level_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(InvalidParamsError, match="debug, info"):
        log_levels.level_of_request({LEVEL: jsonrpc.raw(value)})
    with pytest.raises(InvalidParamsError, match="'level'"):
        log_levels.level_to_set({"level": jsonrpc.raw(value)})
    with pytest.raises(InvalidParamsError):
        log_levels.level_to_set({})


@pytest.mark.parametrize("minimum", LEVELS)
def test_messages_at_the_level_and_above_it_go_on(minimum: str) -> None:
    passed = [level for level in LEVELS if log_levels.passes({"level": jsonrpc.raw(level)}, minimum)]
    assert passed == list(LEVELS[LEVELS.index(minimum) :])


@pytest.mark.parametrize("params", [{}, {"level": Raw(b'"loud"')}, {"level": Raw(b"7")}])
def test_a_message_without_a_level_does_not_go_on(params: dict[str, Raw]) -> None:
    assert not log_levels.passes(params, "debug")
