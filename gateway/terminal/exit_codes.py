"""A command's exit status: 0, 2 with one line per mistake, 130 after Ctrl-C, 141 when nobody reads its output."""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from gateway.errors import CallscopeError, messages

P = ParamSpec("P")


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Print errors on stderr, one a line, and end with their status; a traceback is a bug only."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on Ctrl-C closes what is open
        try:
            command(*args, **kwargs)
        except* CallscopeError as group:
            for message in messages(group):
                click.echo(message, err=True)
            sys.exit(2)
        except* BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
            sys.exit(128 + signal.SIGPIPE)
        except* KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    return wrapped
