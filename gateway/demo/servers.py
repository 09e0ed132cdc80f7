"""The demo's MCP servers as processes: `python -m gateway.demo.servers modern|legacy|misbehaving|stdio`.

Over HTTP it prints its URL in one line once it listens, and ends at SIGTERM, Ctrl-C or, if standard input is a pipe, at
its end: with the process that started it.
"""

import argparse
import contextlib
import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import uvloop
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from gateway.demo.misbehaving_server import Misbehaving
from gateway.demo.server import LegacyOnly, build, over_http
from gateway.demo.tools import BILLING, FILES, GITHUB, WAREHOUSE, DemoTool
from gateway.process import log_to_stderr, serve, stop_requested

PATH: Final = "/mcp"
SEED: Final = 20260728
GRACE_S: Final = 2

TOOLS: Final[Mapping[str, Sequence[DemoTool]]] = {
    "modern": GITHUB,
    "legacy": BILLING,
    "misbehaving": WAREHOUSE,
    "stdio": FILES,
}
"""Each kind of server and what it offers in the demo."""


def main(tools: Mapping[str, Sequence[DemoTool]] = TOOLS) -> None:
    """The command line; `tools` are those of each kind."""
    parser = argparse.ArgumentParser(description="One of the demo's MCP servers.")
    parser.add_argument("kind", choices=sorted(tools))
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fd", type=int, help="an inherited socket that listens, in place of a port")
    parser.add_argument("--seed", type=int, default=SEED, help="what the calls do is drawn from it")
    options = parser.parse_args()
    log_to_stderr(options.kind)
    if options.kind == "stdio":
        uvloop.run(_over_stdio(build(options.kind, tools[options.kind], options.seed)))
        return
    if options.fd is not None:
        sock = socket.socket(fileno=options.fd)
    else:
        sock = socket.create_server(("127.0.0.1", options.port))
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_over_http(options.kind, tools[options.kind], options.seed, sock))


async def _over_stdio(server: Server[dict[str, Any]]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def _over_http(kind: str, tools: Sequence[DemoTool], seed: int, sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    kind_of_stdin = os.fstat(sys.stdin.fileno()).st_mode
    is_pipe = stat.S_ISFIFO(kind_of_stdin) or stat.S_ISSOCK(kind_of_stdin)  # asyncio gives children a socket pair
    parent_pipe = sys.stdin.fileno() if is_pipe else None
    async with contextlib.AsyncExitStack() as resources:
        stop = await resources.enter_async_context(stop_requested(parent_pipe))
        print(f"http://{host}:{port}{PATH}", flush=True)  # noqa: T201 - what the starter reads
        if kind == "misbehaving":
            await serve(Misbehaving(tools, seed), sock, stop=stop, grace_seconds=GRACE_S)
            return
        manager = over_http(build(kind, tools, seed))
        await resources.enter_async_context(manager.run())
        app = LegacyOnly(manager.handle_request) if kind == "legacy" else manager.handle_request
        await serve(app, sock, stop=stop, grace_seconds=GRACE_S)


if __name__ == "__main__":
    main()
