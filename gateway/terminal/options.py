"""The options that several commands share, and what they mean for the API; filters have the names of its parameters."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from gateway.calls import ErrorType
from gateway.terminal.api_client import TIMEOUT_S, ApiClient, Parameters, connect

Command = Callable[..., None]
Decorator = Callable[[Command], Command]
Options = Mapping[str, Any]

_FILTERS: Final = ("server", "tool", "token", "status", "error_type")


def _all_of(*options: Decorator) -> Decorator:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


CONNECTION: Final = _all_of(
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
WORKSPACE: Final = click.option("--workspace", metavar="SLUG", help="Not needed if there is only one.")
TZ: Final = click.option(
    "--tz", metavar="ZONE", default="UTC", show_default=True, help="IANA time zone of days, and of the times shown."
)
RANGE: Final = _all_of(
    click.option("--period", metavar="SPAN", help="today, week, month, or a length such as 5m or 7d."),
    click.option("--from", metavar="TIME", help="RFC 3339, or seconds since 1970; excludes --period."),
    click.option("--to", metavar="TIME", help="End of the range, exclusive; now by default."),
    TZ,
)
FILTERS: Final = _all_of(
    click.option("--server", multiple=True, metavar="SLUG", help="Calls of this server; repeatable, like all filters."),
    click.option("--tool", multiple=True, metavar="NAME", help="Calls of this tool, by its name on the server."),
    click.option("--token", multiple=True, metavar="ID", help="Calls of this member or bot, by the id of its token."),
    click.option("--status", multiple=True, type=click.Choice(["success", "error"])),
    click.option(
        "--error-type",
        multiple=True,
        type=click.Choice([str(error) for error in ErrorType]),
        metavar="TYPE",
        help=f"One of {', '.join(ErrorType)}.",
    ),
)


def connected(options: Options, *, timeout_s: float = TIMEOUT_S) -> AbstractContextManager[ApiClient]:
    """The client of the observer that `CONNECTION` names; --config overrides the environment."""
    config_path: Path | None = options["config_path"]
    source = click.get_current_context().get_parameter_source

    def given(name: str) -> str | None:
        ignored = config_path is not None and source(name) is ParameterSource.ENVIRONMENT
        return None if ignored else options[name] or None

    return connect(config_path, given("url"), given("jwt"), timeout_s)


def span(options: Options, period: str) -> Parameters:
    """The API's parameters of `RANGE`; `period` is the default."""
    chosen = {name: options[name] for name in ("period", "from", "to") if options[name] is not None}
    return list(({**chosen, "tz": options["tz"]} if chosen else {"period": period, "tz": options["tz"]}).items())


def filters(options: Options) -> Parameters:
    """The API's parameters of `FILTERS`."""
    return [(name, value) for name in _FILTERS for value in options[name]]
