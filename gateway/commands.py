"""The commands of `callscope`; those that show what a gateway recorded are in `gateway.terminal`."""

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Any, Final, Literal

import click
import uvloop
from pydantic import TypeAdapter, ValidationError

from gateway import __version__, bundled, supervisor, tokens
from gateway.analytics import bearer
from gateway.config import Config, Slug, Token, Url, load
from gateway.errors import CallscopeError, messages

CONFIG = click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The configuration file (YAML).",
)
FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
SAFE_SECRET_BYTES: Final = 32
"""RFC 7518, section 3.2: a key of HS256 is at least as long as its hash."""
SECONDS = click.IntRange(1, 100 * 366 * 86400)
"""A lifetime of at most a century, which still ends before the last date that Python can write."""
VIEWS: Final[Mapping[str, str]] = {
    "export": "gateway.terminal.export_command",
    "tail": "gateway.terminal.tail_command",
    "top": "gateway.terminal.top_command",
    "usage": "gateway.terminal.usage_command",
}
"""The commands of the terminal, and the modules that define them under the same name."""


class Commands(click.Group):
    """Imports the terminal's commands when they are called, and turns errors into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *VIEWS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in VIEWS:  # imported late, so that the other commands start without an HTTP client
            command: click.Command | None = getattr(importlib.import_module(VIEWS[cmd_name]), cmd_name)
        else:
            command = super().get_command(ctx, cmd_name)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on Ctrl-C closes what is open
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except* CallscopeError as group:
            for message in messages(group):
                click.echo(message, err=True)
            sys.exit(2)
        except* BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
            sys.exit(128 + signal.SIGPIPE)
        except* KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="callscope")
def commands() -> None:
    """An MCP workspace gateway that records every tool call once and makes it observable."""


@commands.command()
@CONFIG
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Relay processes.")
def serve(config_path: Path, workers: int) -> None:
    """Serve the workspaces of a configuration until SIGTERM or Ctrl-C."""
    config = load(config_path)
    _warn(config_path, config)
    uvloop.run(supervisor.serve(config_path, config, workers=workers, announce=click.echo))


@commands.command()
@CONFIG
def check(config_path: Path) -> None:
    """Check a configuration: print ok, or every mistake in it."""
    config = load(config_path)
    _warn(config_path, config)
    servers = sum(len(workspace.servers) for workspace in config.workspaces.values())
    members = sum(len(workspace.tokens) for workspace in config.workspaces.values())
    click.echo(f"{config_path}: ok ({len(config.workspaces)} workspaces, {servers} servers, {members} tokens)")


def _warn(path: Path, config: Config) -> None:
    secret = config.api.jwt.secret if config.api is not None else None
    if secret is not None and len(secret.encode()) < SAFE_SECRET_BYTES:
        click.echo(
            f"{path}: api.jwt.secret: warning: is shorter than {SAFE_SECRET_BYTES} bytes and can be guessed; whoever "
            "knows it can read every call: use what `openssl rand -hex 32` prints",
            err=True,
        )


@commands.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1), help="Stop so long after the first call; at Ctrl-C by default."
)
@click.option("--observer", help="Address of the observer, HOST:PORT, for a Prometheus that expects it there.")
@click.option("--otlp", help="Endpoint for traces and log records, for example http://127.0.0.1:4318.")
def demo(seconds: float | None, observer: str | None, otlp: str | None) -> None:
    """Run real MCP servers, members and bots, and show what Callscope records."""
    from gateway import demo as demonstration  # noqa: PLC0415 - the SDK's import takes a second that no other command has

    sys.exit(demonstration.run(seconds, observer=observer, otlp=otlp))


@commands.command()
@click.option("--workspace", required=True, help="The workspace's slug.")
@click.option("--name", required=True, help='The name that people see, for example "Alice Cursor".')
@click.option("--kind", type=click.Choice(["member", "bot"]), default="member", show_default=True)
@click.option("--expires-in", type=SECONDS, help="Lifetime in seconds; unlimited by default.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where clients reach the relay.")
def token(workspace: str, name: str, kind: str, expires_in: int | None, url: str) -> None:
    """Create a token: print its entry for the configuration, and the client's block with the secret, shown once."""
    created = tokens.create()
    entry: dict[str, Any] = {"id": tokens.identifier(name), "name": name, "kind": kind, "sha256": created.sha256}
    if expires_in is not None:
        expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
        entry["expires_at"] = expires_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    _validate((("--workspace", Slug, workspace), ("--name", Token, entry), ("--url", Url, url)))
    click.echo(f"# Add this line below `tokens:` of the workspace {workspace}; it replaces the [] of `tokens: []`.")
    click.echo("# A running gateway reads the changed configuration by itself.")
    click.echo(f"- {json.dumps(entry, ensure_ascii=False)}")
    click.echo("# Give this block to the client; the secret is not shown again.")
    block = tokens.client_configuration(workspace, f"{url.rstrip('/')}/ws/{workspace}", created.secret)
    click.echo(json.dumps(block, indent=2))


def _validate(options: Iterable[tuple[str, Any, object]]) -> None:
    """Check options by the types of the configuration, which they will be written into."""
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
@click.option("--workspace", "slugs", required=True, multiple=True, help="A slug, or * for all; repeatable.")
@click.option("--ttl", type=SECONDS, default=3600, show_default=True, help="Lifetime in seconds.")
@click.option("--token", "token_id", help="Only this member's calls.")
def jwt(config_path: Path, slugs: tuple[str, ...], ttl: int, token_id: str | None) -> None:
    """Print a JWT for the analytics API, signed with the configuration's secret."""
    config = load(config_path)
    if config.api is None or config.api.jwt.secret is None:
        raise CallscopeError(f"{config_path}: api.jwt.secret: is missing: it is needed to sign a JWT")
    for slug in slugs:
        if slug != "*" and slug not in config.workspaces:
            known = ", ".join(sorted(config.workspaces))
            raise CallscopeError(f"--workspace: {config_path} has no workspace {slug!r}; it has {known or 'none'}")
    if token_id is not None:
        chosen = config.workspaces if "*" in slugs else slugs
        members = sorted({token.id for slug in chosen for token in config.workspaces[slug].tokens})
        if token_id not in members:
            raise CallscopeError(
                f"--token: {', '.join(slugs)} has no token {token_id!r}; it has {', '.join(members) or 'none'}"
            )
    click.echo(bearer.issue(config.api.jwt, slugs, ttl_s=ttl, now=time.time(), token=token_id))


@commands.group()
def dashboards() -> None:
    """Grafana dashboards."""


@dashboards.command("export")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "configmap"]),
    default="json",
    show_default=True,
    help="JSON that Grafana imports or provisions, or a Kubernetes ConfigMap of each for its sidecar.",
)
@FOLDER
def export_dashboards(folder: Path, format_: Literal["json", "configmap"]) -> None:
    """Write the dashboards into FOLDER."""
    found = bundled.bundled("dashboards")
    if format_ == "configmap":
        found = {_manifest_name(name): bundled.config_map(name, content) for name, content in found.items()}
    for path in bundled.write("dashboards", found, folder):
        click.echo(path)


@commands.group()
def rules() -> None:
    """Prometheus rules: alerts, and what some panels of the dashboards read."""


@rules.command("export")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["prometheus", "prometheusrule"]),
    default="prometheus",
    show_default=True,
    help="Files for `rule_files` of Prometheus, or a Kubernetes PrometheusRule of each for its operator.",
)
@click.option(
    "--runbook", metavar="URL", help=f"URL of your runbook, which alerts link to instead of {bundled.RUNBOOK}."
)
@FOLDER
def export_rules(folder: Path, format_: Literal["prometheus", "prometheusrule"], runbook: str | None) -> None:
    """Write the recording rules, the alerts and the runbook of the alerts into FOLDER."""
    found = bundled.bundled("rules")
    if runbook is not None:
        found = bundled.link_runbook(runbook, found)
    if format_ == "prometheusrule":
        found = {_manifest_name(name): bundled.prometheus_rule(name, content) for name, content in found.items()}
    for path in bundled.write("rules", {**found, **bundled.bundled("runbook")}, folder):
        click.echo(path)


def _manifest_name(name: str) -> str:
    return f"{PurePath(name).stem}.yml"
