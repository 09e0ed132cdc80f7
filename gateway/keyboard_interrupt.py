"""Ctrl-C while something is imported: an exception there would end in a traceback, or be lost in an extension."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interrupted_quietly() -> Iterator[None]:
    """Ctrl-C ends the process at once; for blocks in which nothing is open yet that would have to be closed."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:  # a shell's background job ignores the signal, and goes on doing so
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(128 + signal.SIGINT)
