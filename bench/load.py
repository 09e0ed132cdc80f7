"""A closed-loop load: N connections, one request each under way, for some seconds. Prints one line of JSON."""

import asyncio
import json
import statistics
import sys
import time

import uvloop

from gateway.http1.pool import Pool

META = (
    '{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},'
    '"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}'
)


def request(path: str, tool: str, secret: str) -> bytes:
    """A whole `tools/call`, the same each time: the load generator must not be what is measured."""
    body = (
        f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}",'
        f'"arguments":{{"text":"hello","n":3}},"_meta":{META}}}}}'
    )
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {secret}\r\n"
        "content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
        f"mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {tool}\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def worker(pool: Pool, data: bytes, until: float, latencies: list[float]) -> int:
    """One connection's loop; how many answers were no success."""
    connection = await pool.connect()
    failed = 0
    while time.perf_counter() < until:
        began = time.perf_counter()
        response = await connection.send(data)
        latencies.append(time.perf_counter() - began)
        failed += response.status != 200 or b'"isError":false' not in response.body
        connection.rest()
    return failed


async def main(port: int, path: str, tool: str, secret: str, connections: int, seconds: float) -> None:
    """Load, then report."""
    pool = Pool("127.0.0.1", port, None)
    data = request(path, tool, secret)
    latencies: list[float] = []
    began = time.perf_counter()
    failed = await asyncio.gather(*(worker(pool, data, began + seconds, latencies) for _ in range(connections)))
    elapsed = time.perf_counter() - began
    quantiles = statistics.quantiles(latencies, n=100)
    print(
        json.dumps(
            {
                "calls": len(latencies),
                "failed": sum(failed),
                "per_second": len(latencies) / elapsed,
                "p50_ms": quantiles[49] * 1e3,
                "p99_ms": quantiles[98] * 1e3,
            }
        )
    )
    pool.close()


if __name__ == "__main__":
    _, port_, path_, tool_, secret_, connections_, seconds_ = sys.argv
    uvloop.run(main(int(port_), path_, tool_, secret_, int(connections_), float(seconds_)))
