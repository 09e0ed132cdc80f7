"""The demonstration: real MCP servers, members and bots that use them, and what Callscope sees of it all."""


def run(seconds: float | None) -> int:
    """Show it until Ctrl-C or for `seconds`; the exit status is 0 if Callscope counted what the clients counted."""
    from gateway.demo.show import run as show  # noqa: PLC0415 - the servers' processes import this package as well

    return show(seconds)
