"""An HTTP server that answers as it is told to, and can break off in the middle."""

import contextlib
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, sent in chunks; `whole` is false for one whose end never comes."""

    body: bytes
    status: int = 200
    whole: bool = True
    meanwhile: Callable[[], object] = field(default=lambda: None)
    """Called when the body is sent, before the connection ends."""


@dataclass(frozen=True, slots=True)
class Requested:
    """What was asked for."""

    path: str
    last_event_id: str | None
    bearer: str


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of clients that hang up: some are meant to."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let what is no hanging up be told as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def scripted(*answers: Answer, requests: list[Requested] | None = None) -> Iterator[str]:
    """Its URL; the answers are given in turn, the last one again and again."""
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if requests is not None:
                bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
                requests.append(Requested(self.path, self.headers.get("Last-Event-ID"), bearer))
            answer = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(answer.status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if answer.body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(answer.body), answer.body))
            answer.meanwhile()
            if answer.whole:
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "http://{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
            thread.join()
