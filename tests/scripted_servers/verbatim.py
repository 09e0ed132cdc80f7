"""A modern MCP server that answers every call with the very bytes it was given, and keeps the bytes of the requests."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_KINDS: Final = b'"resultType": "complete", "ttlMs": 0, "cacheScope": "private"'
_DISCOVERED: Final = b'{%b, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}' % _KINDS
_LISTED: Final = b'{%b, "tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}' % _KINDS


class Verbatim(ThreadingHTTPServer):
    """Knows one tool, `echo`, whose result is `result`."""

    daemon_threads = True

    def __init__(self, result: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.result = result
        self.requests: list[bytes] = []
        """The bodies of the calls."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}/mcp"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Verbatim

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        if message["method"] == "tools/call":
            self.server.requests.append(body)
        results = {"server/discover": _DISCOVERED, "tools/list": _LISTED, "tools/call": self.server.result}
        answer = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], results[message["method"]])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """A test's output is its own."""


@contextlib.contextmanager
def verbatim(result: bytes) -> Iterator[Verbatim]:
    """The server, while the block runs."""
    server = Verbatim(result)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
