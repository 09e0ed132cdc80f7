"""The demonstration: real MCP servers, members and bots that use them, and what Callscope sees of it all."""


def run(seconds: float | None, *, observer: str | None = None, otlp: str | None = None) -> int:
    """Show it until Ctrl-C or for `seconds`; the exit status is 0 if Callscope counted what the clients counted.

    `observer` is where its observer listens, `host:port`, and `otlp` where traces and log records go.
    """
    from gateway.demo.environment import BackEnds  # noqa: PLC0415
    from gateway.demo.runner import run as show  # noqa: PLC0415 - the servers' processes import this package as well

    return show(seconds, BackEnds(observer=observer, otlp=otlp))
