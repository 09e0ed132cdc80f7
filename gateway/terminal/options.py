"""The options that several commands share. Those that filter are named as the API's parameters are."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from gateway.calls import ErrorType
from gateway.terminal.observer_connection import connect

Command = Callable[..., None]

_CONNECTION: Final = (
    click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help="The configuration of `callscope serve`: says where the observer is, and signs a token.",
    ),
    click.option("--url", envvar="CALLSCOPE_URL", show_envvar=True, help="The observer's address, without --config."),
    click.option(
        "--jwt", envvar="CALLSCOPE_JWT", show_envvar=True, help="The bearer for it, as `callscope jwt` prints it."
    ),
)
_FILTERS: Final = (
    click.option("--server", multiple=True, metavar="SLUG", help="Only calls of this server; repeatable, as each."),
    click.option("--tool", multiple=True, metavar="NAME", help="Only calls of this tool, by the server's name for it."),
    click.option("--token", multiple=True, metavar="ID", help="Only calls of this member or bot, by its token's id."),
    click.option("--status", multiple=True, type=click.Choice(["success", "error"])),
    click.option(
        "--error-type", multiple=True, type=click.Choice([str(error) for error in ErrorType]), metavar="TYPE",
        help=f"One of {', '.join(ErrorType)}.",
    ),
)  # fmt: skip
_FROM_TO: Final = (
    click.option("--from", "from_", metavar="TIME", help="RFC 3339, or seconds since 1970; excludes --period."),
    click.option("--to", metavar="TIME", help="Up to, and without; now by default."),
)
ONE_WORKSPACE: Final = click.option("--workspace", metavar="SLUG", help="Which; the only one that there is by default.")
TZ: Final = click.option(
    "--tz", metavar="ZONE", default="UTC", show_default=True, help="IANA zone of the times that are shown."
)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def connected(command: Command) -> Command:
    """Where the observer is, as the argument `connection`. A configuration goes before the environment."""

    @wraps(command)
    def wrapped(*, config_path: Path | None, url: str | None, jwt: str | None, **others: Any) -> None:
        context = click.get_current_context()
        if config_path is not None:
            set_elsewhere = ParameterSource.ENVIRONMENT
            url = None if context.get_parameter_source("url") is set_elsewhere else url
            jwt = None if context.get_parameter_source("jwt") is set_elsewhere else jwt
        command(connection=connect(config_path, url or None, jwt or None), **others)

    return _with(_CONNECTION, wrapped)


def filtered(command: Command) -> Command:
    """Which calls, as the argument `filters`: names and values of the API's parameters."""
    names = ("server", "tool", "token", "status", "error_type")

    @wraps(command)
    def wrapped(**given: Any) -> None:
        values = {name: given.pop(name) for name in names}
        command(filters=[(name, value) for name in names for value in values[name]], **given)

    return _with(_FILTERS, wrapped)


def ranged(default: str) -> Callable[[Command], Command]:
    """From when to when, as the argument `span`: names and values of the API's parameters."""
    period = click.option(
        "--period", metavar="SPAN", help=f"today, week, month, or a length such as 1h or 7d.  [default: {default}]"
    )
    tz = click.option(
        "--tz", metavar="ZONE", default="UTC", show_default=True,
        help="IANA zone in which today, week and month begin, and of the times that are shown.",
    )  # fmt: skip

    def decorate(command: Command) -> Command:
        @wraps(command)
        def wrapped(*, period: str | None, from_: str | None, to: str | None, tz: str, **others: Any) -> None:
            if (period, from_, to) == (None, None, None):
                period = default
            given = (("period", period), ("from", from_), ("to", to), ("tz", tz))
            command(span=[(name, value) for name, value in given if value is not None], **others)

        return _with((period, *_FROM_TO, tz), wrapped)

    return decorate
