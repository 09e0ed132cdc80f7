"""What `callscope` can do: the gateway's own commands here, the terminal's views in `gateway.terminal`."""

import importlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
import uvloop
from pydantic import TypeAdapter, ValidationError

from gateway import __version__, supervisor, tokens
from gateway.analytics import bearer
from gateway.bundled_commands import dashboards, rules
from gateway.config import Config, Slug, Token, Url, load
from gateway.errors import CallscopeError
from gateway.keyboard_interrupt import interrupted_quietly
from gateway.terminal.exit_codes import reports_errors

CONFIG = click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The configuration file (YAML).",
)
SAFE_SECRET_BYTES: Final = 32
"""RFC 7518, section 3.2: a key of HS256 is at least as long as its hash."""
SECONDS = click.IntRange(1, 100 * 366 * 86400)
"""A lifetime: a century is more than anybody needs, and far from what no calendar has."""


VIEWS: Final[Mapping[str, str]] = {
    "export": "gateway.terminal.export_command",
    "tail": "gateway.terminal.tail_command",
    "top": "gateway.terminal.top_command",
    "usage": "gateway.terminal.usage_command",
}
"""Commands that look at a gateway, and the modules that have them under the same name."""


class Commands(click.Group):
    """The commands; a view is imported when it is asked for, so that the others start without an HTTP client."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all, in order."""
        return sorted([*super().list_commands(ctx), *VIEWS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; None if there is none."""
        if cmd_name not in VIEWS:
            return super().get_command(ctx, cmd_name)
        with interrupted_quietly():
            view: click.Command = getattr(importlib.import_module(VIEWS[cmd_name]), cmd_name)
        return view


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="callscope")
def commands() -> None:
    """An MCP workspace gateway that records every tool call once and makes it observable."""


commands.add_command(dashboards)
commands.add_command(rules)


@commands.command()
@CONFIG
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Relay processes.")
@reports_errors
def serve(config_path: Path, workers: int) -> None:
    """Serve the workspaces of a configuration until SIGTERM or Ctrl-C."""
    config = load(config_path)
    _warn(config_path, config)
    uvloop.run(supervisor.serve(config_path, config, workers=workers, announce=click.echo))


@commands.command()
@CONFIG
@reports_errors
def check(config_path: Path) -> None:
    """Say whether a configuration can be used, or every mistake in it."""
    config = load(config_path)
    _warn(config_path, config)
    servers = sum(len(workspace.servers) for workspace in config.workspaces.values())
    members = sum(len(workspace.tokens) for workspace in config.workspaces.values())
    click.echo(f"{config_path}: ok ({len(config.workspaces)} workspaces, {servers} servers, {members} tokens)")


def _warn(path: Path, config: Config) -> None:
    """What can be used, and should not be."""
    secret = config.api.jwt.secret if config.api is not None else None
    if secret is not None and len(secret.encode()) < SAFE_SECRET_BYTES:
        click.echo(
            f"{path}: api.jwt.secret: warning: is shorter than {SAFE_SECRET_BYTES} bytes and can be guessed, "
            "and whoever has it reads every call: take what `openssl rand -hex 32` prints",
            err=True,
        )


@commands.command()
@click.option("--seconds", type=click.FloatRange(min=1), help="End by itself after this long, with a summary.")
@click.option("--observer", help="Where the observer listens, HOST:PORT, for a Prometheus that expects it there.")
@click.option("--otlp", help="Where traces and log records go, for instance http://127.0.0.1:4318.")
@reports_errors
def demo(seconds: float | None, observer: str | None, otlp: str | None) -> None:
    """Real MCP servers, members and bots, and what Callscope sees of them."""
    from gateway import demo as demonstration  # noqa: PLC0415 - the SDK's import takes a second that no other command has

    sys.exit(demonstration.run(seconds, observer=observer, otlp=otlp))


@commands.command()
@click.option("--workspace", required=True, help="The workspace's slug.")
@click.option("--name", required=True, help='For people, for instance "Alice Cursor".')
@click.option("--kind", type=click.Choice(["member", "bot"]), default="member", show_default=True)
@click.option("--expires-in", type=SECONDS, help="Seconds for which it is valid; forever by default.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where clients reach the relay.")
@reports_errors
def token(workspace: str, name: str, kind: str, expires_in: int | None, url: str) -> None:
    """Create a token: its entry for the configuration, and the block for the client, whose secret is shown once."""
    created = tokens.create()
    entry: dict[str, Any] = {"id": tokens.identifier(name), "name": name, "kind": kind, "sha256": created.sha256}
    if expires_in is not None:
        expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
        entry["expires_at"] = expires_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    _check((("--workspace", Slug, workspace), ("--name", Token, entry), ("--url", Url, url)))
    click.echo(
        f"# below `tokens:` of the workspace {workspace}; where it says `tokens: []`, this line takes the place of []."
    )
    click.echo("# A gateway that runs reads the configuration again by itself.")
    click.echo(f"- {json.dumps(entry, ensure_ascii=False)}")
    click.echo("# for the client; the secret is not shown again")
    block = tokens.client_configuration(workspace, f"{url.rstrip('/')}/ws/{workspace}", created.secret)
    click.echo(json.dumps(block, indent=2))


def _check(options: Iterable[tuple[str, Any, object]]) -> None:
    """Hold options against the configuration's own types, in which they will be written down."""
    mistakes = []
    for option, kind, value in options:
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            mistakes += [f"{option}: {detail['msg'].removeprefix('Value error, ')}" for detail in error.errors()]
    if mistakes:
        raise CallscopeError("\n".join(mistakes))


@commands.command()
@CONFIG
@click.option("--workspace", required=True, multiple=True, help="A slug, or * for all; repeatable.")
@click.option("--ttl", type=SECONDS, default=3600, show_default=True, help="Seconds.")
@click.option("--token", "token_id", help="Only this member's calls.")
@reports_errors
def jwt(config_path: Path, workspace: tuple[str, ...], ttl: int, token_id: str | None) -> None:
    """Print a JWT for the analytics API, signed with the configuration's secret."""
    config = load(config_path)
    click.echo(_issue(config_path, config, workspace, ttl, token_id))


def _issue(path: Path, config: Config, workspaces: tuple[str, ...], ttl: int, token_id: str | None) -> str:
    if config.api is None or config.api.jwt.secret is None:
        raise CallscopeError(f"{path}: api.jwt.secret: is missing: only a shared secret can sign here")
    for slug in workspaces:
        if slug != "*" and slug not in config.workspaces:
            raise CallscopeError(f"{path}: workspaces: has no {slug!r}, but {', '.join(sorted(config.workspaces))}")
    members = _members(config, workspaces)
    if token_id is not None and token_id not in members:
        there = f"but {', '.join(members)}" if members else "and no other token"
        raise CallscopeError(f"{path}: --token: {', '.join(workspaces)} has no {token_id!r}, {there}")
    return bearer.issue(config.api.jwt, workspaces, ttl_s=ttl, now=time.time(), token=token_id)


def _members(config: Config, workspaces: Iterable[str]) -> list[str]:
    """The ids of the tokens of these workspaces, of which `*` is all."""
    slugs = config.workspaces if "*" in workspaces else workspaces
    return sorted({token.id for slug in slugs for token in config.workspaces[slug].tokens})
