"""How the fixture and the adapter serve: on 127.0.0.1, until the process that started them is gone."""

import contextlib
import os
import socket
import stat
import sys
from contextlib import AbstractAsyncContextManager
from typing import Final

import uvloop
from starlette.types import ASGIApp

from gateway.process import log_to_stderr, serve, stop_requested

PATH: Final = "/mcp"
GRACE_S: Final = 1


def run(name: str, application: AbstractAsyncContextManager[ASGIApp], port: int) -> None:
    """Serve, say where in one line on standard output, and stop at SIGTERM, Ctrl-C or the end of a piped stdin."""
    log_to_stderr(name)
    sock = socket.create_server(("127.0.0.1", port))
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(application, sock))


async def _serve(application: AbstractAsyncContextManager[ASGIApp], sock: socket.socket) -> None:
    kind = os.fstat(sys.stdin.fileno()).st_mode
    parent_pipe = sys.stdin.fileno() if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) else None
    async with stop_requested(parent_pipe) as stop, application as app:
        print(f"http://localhost:{sock.getsockname()[1]}{PATH}", flush=True)  # noqa: T201 - what the starter reads
        await serve(app, sock, stop=stop, grace_seconds=GRACE_S)
