"""How a command ends: status 0, 2 with one line per mistake, 130 after Ctrl-C, 141 when nobody reads what it prints."""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import click

from gateway.errors import CallscopeError

P = ParamSpec("P")


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """End with the mistakes on stderr, one a line, and never with a traceback, whoever ended it."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except* CallscopeError as group:
            for error in _leaves(group):
                click.echo(str(error), err=True)
            sys.exit(2)
        except* BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
            sys.exit(128 + signal.SIGPIPE)
        except* KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    return wrapped


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
