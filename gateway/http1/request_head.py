"""A request's head: its lines, what may be served of them, and its ASGI scope.

The head is sliced here and judged by llhttp, which is fed the same bytes before anything is served. In its strict mode
a head ends at its first empty line and its lines end with CRLF, so that the slices are what it saw; it refuses both
Content-Length and Transfer-Encoding, repeated or malformed lengths, bare CR or LF, folded lines, spaces before the
colon. What it lets pass and RFC 9112 forbids is refused here: a missing or repeated Host, another transfer coding than
`chunked`, one in HTTP/1.0, other versions.
"""

import urllib.parse
from typing import Any, Final, NamedTuple

import httptools
from starlette.types import Scope

CHUNKED: Final = -1
"""The length of a body that ends with its last chunk."""

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_ONCE: Final = (b"host", b"content-length", b"transfer-encoding")
_MAX_DIGITS: Final = 18
_MAX_LINES, _MAX_LINE_BYTES = 64, 256


class Refusal(Exception):  # noqa: N818 - an outcome, raised to end the way early
    """What came is no request that can be served: the status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Target(NamedTuple):
    """What a request line says."""

    method: str
    path: str
    """Decoded."""
    raw_path: bytes
    query: bytes
    version: str


class _Fields(dict[bytes, tuple[bytes, bytes]]):
    """Header lines as name, in lower case, and value: a client sends nearly all of its lines each time again."""

    def __missing__(self, line: bytes) -> tuple[bytes, bytes]:
        name, _, value = line.partition(b":")
        field = name.lower(), value.strip(b" \t")
        if len(line) <= _MAX_LINE_BYTES:
            if len(self) >= _MAX_LINES:
                self.clear()
            self[line] = field
        return field


class Origin(NamedTuple):
    """What all requests of a connection have in common."""

    scheme: str
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    root_path: str
    state: dict[str, Any]


class Heads:
    """Reads the heads of one connection, and remembers their lines as long as that lives."""

    __slots__ = ("_fields", "_first", "_origin", "_target")

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._fields = _Fields()
        self._first = b""
        self._target = Target("", "", b"", b"", "")

    def read(self, raw: bytes) -> tuple[Scope, int, bool, bool, bool]:
        """Read a head, without the empty line that ends it.

        Returns:
            The scope; the body's length in bytes, or `CHUNKED`; whether the connection stays; whether the client waits
            for 100 (Continue) before it sends the body; whether it asks for another protocol, which no server has to
            grant (RFC 9110, section 7.8).

        Raises:
            Refusal: it cannot be served.
        """
        lines = raw.split(b"\r\n")
        if lines[0] != self._first:
            self._target = _target(lines[0], self._origin.root_path)
            self._first = lines[0]
        method, path, raw_path, query, version = self._target
        del lines[0]
        known = self._fields
        headers = [known[line] for line in lines]
        fields = dict(headers)
        length, keep_alive, expects, upgrade = 0, True, False, False
        if (
            version != "1.1"
            or b"host" not in fields
            or len(fields) != len(headers)
            or b"connection" in fields
            or b"transfer-encoding" in fields
            or b"expect" in fields
            or b"upgrade" in fields
        ):
            _check(version, fields, headers)
            keep_alive = _keep_alive(version, fields.get(b"connection", b""))
            expects = version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"
            upgrade = b"upgrade" in fields
            if b"transfer-encoding" in fields:
                length = CHUNKED
        if b"content-length" in fields:
            digits = fields[b"content-length"]
            if not digits.isdigit() or len(digits) > _MAX_DIGITS or length == CHUNKED:
                raise Refusal(400, "the length of the request's body is not clear")
            length = int(digits)
        scheme, client, server, root_path, state = self._origin
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "scheme": scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": root_path,
            "headers": headers,
            "client": client,
            "server": server,
        }
        if state:
            scope["state"] = state.copy()
        return scope, length, keep_alive, expects, upgrade


def without_upgrade(raw: bytes) -> bytes:
    """The same head for the parser, which would take what follows it for the other protocol."""
    first, *lines = raw.split(b"\r\n")
    return b"\r\n".join((first, *(line for line in lines if line.partition(b":")[0].lower() != b"upgrade")))


def _target(line: bytes, root_path: str) -> Target:
    """Read a request line (RFC 9112, section 3).

    Raises:
        Refusal: it is none, or not for this server.
    """
    try:
        verb, url, protocol = line.split(b" ")
        method = verb.decode("ascii")
        url.decode("ascii")
    except ValueError as error:
        raise Refusal(400, "the request line is no method, target and version") from error
    if protocol not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refusal(505, "send HTTP/1.1")
    if method == "CONNECT":
        raise Refusal(501, "this is no proxy")
    if url.startswith(b"/") and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
    elif url == b"*":
        raw_path, query = url, b""
    else:  # a whole URL, or with a fragment
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserInvalidURLError as error:
            raise Refusal(400, "the request's target is no path and no URL") from error
        raw_path, query = parsed.path or b"/", parsed.query or b""
    path = root_path + urllib.parse.unquote(raw_path.decode("ascii"))
    return Target(method, path, root_path.encode() + raw_path, query, protocol[5:].decode())


def _check(version: str, fields: dict[bytes, bytes], headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse what a proxy before this server could understand in another way than it does."""
    if version == "1.1" and b"host" not in fields:
        raise Refusal(400, "a request needs a Host header")
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Refusal(400, f"more than one {name.decode()} header")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if version == "1.0":
            raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise Refusal(501, "the only transfer coding is chunked")


def _keep_alive(version: str, connection: bytes) -> bool:
    """See RFC 9112, section 9.3."""
    options = [option.strip() for option in connection.lower().split(b",")]
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)
