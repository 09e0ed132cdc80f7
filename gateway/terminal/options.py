"""The options that several commands share; those that select calls have the names of the API's parameters."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from gateway.calls import ErrorType
from gateway.terminal.api_client import connect

Command = Callable[..., None]

_CONNECTION: Final = (
    click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help="Configuration of `callscope serve`: has the observer's address, and the secret to sign a JWT.",
    ),
    click.option("--url", envvar="CALLSCOPE_URL", show_envvar=True, help="Address of the observer, without --config."),
    click.option(
        "--jwt", envvar="CALLSCOPE_JWT", show_envvar=True, help="JWT for --url, as `callscope jwt` prints it."
    ),
)
_FILTERS: Final = (
    click.option("--server", multiple=True, metavar="SLUG", help="Calls of this server; repeatable, like all filters."),
    click.option("--tool", multiple=True, metavar="NAME", help="Calls of this tool, by its name on the server."),
    click.option("--token", multiple=True, metavar="ID", help="Calls of this member or bot, by the id of its token."),
    click.option("--status", multiple=True, type=click.Choice(["success", "error"])),
    click.option(
        "--error-type", multiple=True, type=click.Choice([str(error) for error in ErrorType]), metavar="TYPE",
        help=f"One of {', '.join(ErrorType)}.",
    ),
)  # fmt: skip
ONE_WORKSPACE: Final = click.option("--workspace", metavar="SLUG", help="Not needed if there is only one.")
TZ: Final = click.option(
    "--tz", metavar="ZONE", default="UTC", show_default=True, help="IANA time zone of the times that are shown."
)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def connected(command: Command) -> Command:
    """Add the options for the observer's address; the command gets the argument `api`."""

    @wraps(command)
    def wrapped(*, config_path: Path | None, url: str | None, jwt: str | None, **others: Any) -> None:
        context = click.get_current_context()
        if config_path is not None:  # --config overrides the environment, and --url and --jwt override --config
            url = None if context.get_parameter_source("url") is ParameterSource.ENVIRONMENT else url
            jwt = None if context.get_parameter_source("jwt") is ParameterSource.ENVIRONMENT else jwt
        with connect(config_path, url or None, jwt or None) as api:
            command(api=api, **others)

    return _with(_CONNECTION, wrapped)


def filtered(command: Command) -> Command:
    """Add the options that filter calls; the command gets the API's parameters as the argument `filters`."""
    names = ("server", "tool", "token", "status", "error_type")

    @wraps(command)
    def wrapped(**given: Any) -> None:
        values = {name: given.pop(name) for name in names}
        command(filters=[(name, value) for name in names for value in values[name]], **given)

    return _with(_FILTERS, wrapped)


def ranged(default: str) -> Callable[[Command], Command]:
    """Add the options for a range of time; the command gets the API's parameters as the argument `span`."""
    help_ = f"today, week, month, or a length such as 5m or 7d.  [default: {default}]"
    options = (
        click.option("--period", metavar="SPAN", help=help_),
        click.option("--from", "from_", metavar="TIME", help="RFC 3339, or seconds since 1970; excludes --period."),
        click.option("--to", metavar="TIME", help="End of the range, exclusive; now by default."),
        click.option(
            "--tz", metavar="ZONE", default="UTC", show_default=True,
            help="IANA time zone of today, week and month, and of the times that are shown.",
        ),
    )  # fmt: skip

    def decorate(command: Command) -> Command:
        @wraps(command)
        def wrapped(*, period: str | None, from_: str | None, to: str | None, tz: str, **others: Any) -> None:
            if (period, from_, to) == (None, None, None):
                period = default
            given = (("period", period), ("from", from_), ("to", to), ("tz", tz))
            command(span=[(name, value) for name, value in given if value is not None], **others)

        return _with(options, wrapped)

    return decorate
