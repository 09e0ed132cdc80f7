"""The demo: real MCP servers, members and bots that call them, and what Callscope records."""


def run(seconds: float | None, *, observer: str | None = None, otlp: str | None = None) -> int:
    """Run until Ctrl-C or for `seconds`; the exit status is 0 if Callscope counted what the clients counted.

    `observer` is the observer's address, `host:port`, and `otlp` the endpoint for traces and log records.
    """
    from gateway.demo.runner import run_demo  # noqa: PLC0415 - the servers' processes import this package as well

    return run_demo(seconds, observer, otlp)
