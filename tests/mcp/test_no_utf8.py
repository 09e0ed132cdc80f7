"""A body whose undecoded parts are no UTF-8 is refused before anything looks into them."""

import pytest

from gateway.mcp import inbound

META = b'"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}'
HEADERS = {b"mcp-protocol-version": b"2026-07-28", b"mcp-method": b"tools/list"}


def read(params: bytes) -> inbound.Request | inbound.Notification | inbound.ClientResponse | inbound.Rejection:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":%b}' % params
    return inbound.read(body, HEADERS, list(HEADERS.items()))


@pytest.mark.parametrize(
    "params",
    [
        b'{"_meta":{%b,"io.modelcontextprotocol/clientInfo":{"name":"\xff"}}}' % META,
        b'{"_meta":{%b,"\xff":1}}' % META,
        b'{"_meta":{%b,"traceparent":"\xff"}}' % META,
        b'{"_meta":{%b},"arguments":{"x":"\xe9"}}' % META,
    ],
)
def test_bytes_that_are_no_utf8_are_a_parse_error(params: bytes) -> None:
    rejection = read(params)
    assert isinstance(rejection, inbound.Rejection)
    assert (rejection.status, rejection.code) == (400, -32700)


def test_text_of_any_script_is_served() -> None:
    request = read('{"_meta":{%s,"io.modelcontextprotocol/clientInfo":{"name":"é 漢字 🙂"}}}'.encode() % META)
    assert isinstance(request, inbound.Request)
    assert request.client.name == "é 漢字 🙂"
