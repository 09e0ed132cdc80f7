"""`x-mcp-header` and `Mcp-Param-*`."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types.jsonrpc import HEADER_MISMATCH
from msgspec import Raw

from gateway.mcp import jsonrpc, param_headers
from gateway.mcp.param_headers import InvalidParamHeaderError, ParamHeaderError, ParamHeaders
from gateway.mcp.revisions import Era


def schema(**properties: Any) -> Raw:
    return jsonrpc.raw({"type": "object", "properties": properties})


def mirrored(kind: str, header: str) -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": header}


def compiled(input_schema: Raw) -> ParamHeaders:
    headers = param_headers.compile_schema(input_schema)
    assert headers is not None
    return headers


def encoded(value: str) -> bytes:
    return b"=?base64?%b?=" % base64.b64encode(value.encode())


CITY = compiled(
    schema(
        region=mirrored("string", "Region"),
        count=mirrored("integer", "count"),
        dry=mirrored("boolean", "Dry-Run"),
        where={"type": "object", "properties": {"city": mirrored("string", "City")}},
        plain={"type": "string"},
    )
)


@pytest.mark.parametrize(
    "input_schema",
    [
        pytest.param(schema(a={"type": "string"}), id="SEP-2243 no header"),
        pytest.param(schema(a={"type": "string", "default": "x-mcp-header"}), id="SEP-2243 only the word"),
        pytest.param(schema(a={"type": "string", "enum": [{"x-mcp-header": "A"}]}), id="SEP-2243 data, not schema"),
        pytest.param(Raw(rb'{"title":"\u00fc"}'), id="SEP-2243 an escape"),
        pytest.param(Raw(b"true"), id="SEP-2243 a schema that is no object"),
    ],
)
def test_a_tool_without_mirrored_arguments_compiles_to_nothing(input_schema: Raw) -> None:
    assert param_headers.compile_schema(input_schema) is None


def test_a_header_is_found_however_its_key_is_written() -> None:
    written = Raw(rb'{"properties":{"a":{"type":"string","x\u002dmcp-header":"A"}}}')
    assert compiled(written).lines(Raw(b'{"a":"x"}'), [], Era.LEGACY) == b"mcp-param-a: x\r\n"


@pytest.mark.parametrize(
    ("input_schema", "told"),
    [
        pytest.param(schema(a=mirrored("number", "A")), "'number'", id="SEP-2243 number"),
        pytest.param(schema(a=mirrored("object", "A")), "'object'", id="SEP-2243 object"),
        pytest.param(schema(a=mirrored("string", "")), "token", id="SEP-2243 empty"),
        pytest.param(schema(a=mirrored("string", "a b")), "token", id="SEP-2243 no token"),
        pytest.param(schema(a=mirrored("string", "A\r\nB: c")), "token", id="SEP-2243 line break"),
        pytest.param(schema(a={"type": "string", "x-mcp-header": 7}), "string", id="SEP-2243 no string"),
        pytest.param(schema(a=mirrored("string", "A"), b=mirrored("string", "a")), "duplicates", id="SEP-2243 twice"),
        pytest.param(schema(a={"type": "array", "items": mirrored("string", "A")}), "properties", id="SEP-2243 items"),
        pytest.param(Raw(b'{"x-mcp-header":"A"'), "no JSON", id="no JSON"),
    ],
)
def test_1_3_a_tool_with_an_invalid_header_is_to_be_dropped_and_says_why(input_schema: Raw, told: str) -> None:
    with pytest.raises(InvalidParamHeaderError, match=told):
        param_headers.compile_schema(input_schema)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        pytest.param(None, b"", id="SEP-2243 no arguments"),
        pytest.param(b"null", b"", id="SEP-2243 null arguments"),
        pytest.param(b"[1]", b"", id="SEP-2243 arguments that are no object"),
        pytest.param(b'{"region":null}', b"", id="SEP-2243 null is absent"),
        pytest.param(b'{"region":"eu"}', b"mcp-param-region: eu\r\n", id="SEP-2243 string"),
        pytest.param(b'{"count":42,"plain":"x"}', b"mcp-param-count: 42\r\n", id="SEP-2243 integer"),
        pytest.param(b'{"dry":true}', b"mcp-param-dry-run: true\r\n", id="SEP-2243 boolean"),
        pytest.param(b'{"where":{"city":"Ulm"}}', b"mcp-param-city: Ulm\r\n", id="SEP-2243 nested"),
        pytest.param(b'{"where":7}', b"", id="SEP-2243 nested in what is no object"),
        pytest.param(b'{"region":{"a":1}}', b"", id="SEP-2243 no scalar"),
        pytest.param(
            '{"region":"München"}'.encode(),
            b"mcp-param-region: %b\r\n" % encoded("München"),
            id="SEP-2243 not ASCII",
        ),
        pytest.param(
            rb'{"region":"a\r\nx: y"}',
            b"mcp-param-region: %b\r\n" % encoded("a\r\nx: y"),
            id="SEP-2243 a line break is encoded",
        ),
        pytest.param(
            b'{"count":123456789012345678901234567890}',
            b"mcp-param-count: 123456789012345678901234567890\r\n",
            id="SEP-2243 a large integer keeps its digits",
        ),
    ],
)
def test_a_call_upstream_has_the_headers_that_its_arguments_ask_for(arguments: bytes | None, lines: bytes) -> None:
    assert CITY.lines(Raw(arguments) if arguments is not None else None, [], Era.LEGACY) == lines


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        pytest.param(b"{}", [], id="absent together"),
        pytest.param(b'{"region":null}', [], id="null is absent"),
        pytest.param(b'{"region":"eu"}', [(b"mcp-param-region", b"eu")], id="present together"),
        pytest.param(b'{"region":"eu"}', [(b"mcp-param-region", encoded("eu"))], id="base64"),
        pytest.param('{"region":"ü"}'.encode(), [(b"mcp-param-region", encoded("ü"))], id="base64 not ASCII"),
        pytest.param(b'{"count":42}', [(b"mcp-param-count", b"42.0")], id="numerically"),
        pytest.param(b'{"count":42.0}', [(b"mcp-param-count", b"42")], id="numerically, the other way round"),
        pytest.param(b'{"dry":false}', [(b"mcp-param-dry-run", b"false")], id="boolean"),
        pytest.param(b"{}", [(b"mcp-param-other", b"x"), (b"mcp-param-other", b"y")], id="unknown is ignored"),
    ],
)
def test_headers_that_agree_with_the_arguments_are_accepted(arguments: bytes, lines: list[tuple[bytes, bytes]]) -> None:
    CITY.lines(Raw(arguments), lines, Era.MODERN)


@pytest.mark.parametrize(
    ("arguments", "lines", "told"),
    [
        pytest.param(b"{}", [(b"mcp-param-region", b"eu")], "absent", id="only the header"),
        pytest.param(b'{"region":null}', [(b"mcp-param-region", b"null")], "absent", id="null and a header"),
        pytest.param(b'{"region":"eu"}', [], "missing", id="only the argument"),
        pytest.param(b'{"region":"eu"}', [(b"mcp-param-region", b"us")], "match", id="another value"),
        pytest.param(b'{"region":"eu"}', [(b"mcp-param-region", b"EU")], "match", id="another case"),
        pytest.param(b'{"region":"eu"}', [(b"mcp-param-region", b"=?base64?%%?=")], "malformed", id="bad base64"),
        pytest.param(b'{"count":42}', [(b"mcp-param-count", b"42.5")], "match", id="another number"),
        pytest.param(b'{"count":1000}', [(b"mcp-param-count", b"1e3")], "match", id="no scientific notation"),
        pytest.param(b'{"dry":true}', [(b"mcp-param-dry-run", b"1")], "match", id="a boolean is no number"),
        pytest.param(
            b'{"region":"eu"}',
            [(b"mcp-param-region", b"eu"), (b"mcp-param-region", b"us")],
            "more than once",
            id="twice",
        ),
        pytest.param('{"region":"ü"}'.encode(), [(b"mcp-param-region", b"\xc3\xbc")], "match", id="raw bytes"),
    ],
)
def test_headers_that_disagree_are_told_apart(arguments: bytes, lines: list[tuple[bytes, bytes]], told: str) -> None:
    with pytest.raises(ParamHeaderError, match=told) as caught:
        CITY.lines(Raw(arguments), lines, Era.MODERN)
    assert caught.value.code == HEADER_MISMATCH


@pytest.mark.parametrize("arguments", [rb'{"region":"\ud800"}', b'{"region":"\xff"}', b'{"count":1e999}', b'{"region"'])
def test_arguments_that_cannot_be_decoded_are_refused_not_sent_without_their_headers(arguments: bytes) -> None:
    for era in Era:
        with pytest.raises(ParamHeaderError) as caught:
            CITY.lines(Raw(arguments), [], era)
        assert caught.value.code == jsonrpc.INVALID_PARAMS


@given(st.text(), st.integers(-(10**30), 10**30), st.booleans())
def test_what_the_gateway_sends_is_what_it_would_accept(region: str, count: int, dry: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    arguments = jsonrpc.raw({"region": region, "dry": dry})
    arguments = Raw(bytes(arguments)[:-1] + b',"count":%d}' % count)
    sent = CITY.lines(arguments, [], Era.LEGACY)
    assert sent.isascii()
    lines = [(name, value) for name, _, value in (line.partition(b": ") for line in sent.split(b"\r\n")[:-1])]
    assert len(lines) == 3
    assert CITY.lines(arguments, lines, Era.MODERN) == sent


def test_what_the_tool_does_not_name_goes_on_as_it_came() -> None:
    headers = {b"mcp-param-region": b"eu", b"mcp-param-x": b"1", b"authorization": b"secret", b"mcp-name": b"n"}
    arguments = Raw(b'{"region":"eu"}')
    for mirrored_by in (CITY, None):
        lines = param_headers.upstream_lines(mirrored_by, headers, arguments, Era.MODERN)
        assert lines == b"mcp-param-region: eu\r\nmcp-param-x: 1\r\n"
    assert param_headers.upstream_lines(CITY, headers, Raw(b"{}"), Era.LEGACY) == b"mcp-param-x: 1\r\n"
    assert param_headers.upstream_lines(None, {b"authorization": b"secret"}, arguments, Era.MODERN) == b""
