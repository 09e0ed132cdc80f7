"""The measure: a bare ASGI pass-through on uvicorn with the relay's own HTTP client, which does nothing else."""

import socket
import sys

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from gateway.http1.pool import Pool

HEAD = (
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\ncontent-length: %d\r\n\r\n%b"
)


class Passthrough:
    """One upstream, no questions."""

    def __init__(self, port: int) -> None:
        self._pool = Pool("127.0.0.1", port, None)

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Relay one request."""
        body = (await receive())["body"]
        connection = self._pool.take() or await self._pool.connect()
        response = await connection.send(HEAD % (len(body), body))
        self._pool.release(connection)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


async def main(port: int, upstream_port: int) -> None:
    """Serve until killed."""
    config = uvicorn.Config(
        Passthrough(upstream_port),
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    await uvicorn.Server(config).serve(sockets=[socket.create_server(("127.0.0.1", port), backlog=2048)])


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
