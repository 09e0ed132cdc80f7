"""The command `callscope`. It is imported in a moment, so that Ctrl-C ends it quietly from the start."""

import os
import signal
from types import FrameType


def main() -> None:
    """Import the commands, which takes most of a second, and do what the command line says."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # a shell's background job ignores the signal, and goes on doing so
        signal.signal(signal.SIGINT, _end)
    from gateway.commands import commands  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, usual)
    commands()


def _end(_number: int, _frame: FrameType | None) -> None:
    """Nothing is open yet that would have to be closed; an import would make a traceback of an exception."""
    os._exit(128 + signal.SIGINT)
