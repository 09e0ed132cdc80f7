"""The configuration file: its types, and how it is loaded, validated and watched. Only here is the environment read.

`load` raises one `ConfigError` with every mistake in it. Relative paths are relative to the file's folder.
"""

import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import limits
import watchfiles
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    HttpUrl,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from gateway import config_yaml, database_url
from gateway.errors import ConfigError, Mistake

SLUG: Final = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*")
MAX_SLUG: Final = 64


def _slug(value: str) -> str:
    if not SLUG.fullmatch(value) or len(value) > MAX_SLUG:
        raise ValueError(
            f"is not a slug: use letters and digits, joined by single '-' or '_', at most {MAX_SLUG} characters "
            "('__' separates the server from the tool)"
        )
    return value


def _rate(value: str) -> str:
    try:
        rates = limits.parse_many(value)
    except ValueError:
        rates = []
    if len(rates) != 1 or rates[0].amount < 1:
        raise ValueError("is not a rate: write for example '120/minute' or '10/second', or null for no limit")
    return value


def _url(value: str) -> str:
    TypeAdapter(HttpUrl).validate_python(value)
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return value


def _in_folder(value: Path, info: ValidationInfo) -> Path:
    return (info.context / value).resolve() if isinstance(info.context, Path) else value


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Address(BaseModel):
    """A TCP address to listen on; port 0 takes a free one."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: object) -> object:
    if isinstance(value, Address | dict):
        return value
    host, _, port = str(value).rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("is not an address: write host:port, for example 127.0.0.1:8080")
    return {"host": host.removeprefix("[").removesuffix("]"), "port": int(port)}


Slug = Annotated[str, AfterValidator(_slug)]
Rate = Annotated[str, AfterValidator(_rate)]
Url = Annotated[str, AfterValidator(_url)]
LedgerUrl = Annotated[str, AfterValidator(database_url.checked)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Listen = Annotated[Address, BeforeValidator(_address)]
_ADDRESS: Final[TypeAdapter[Address]] = TypeAdapter(Listen)
Folder = Annotated[Path, AfterValidator(_in_folder)]
Timestamp = Annotated[datetime, AfterValidator(_utc)]
Seconds = Annotated[float, Field(gt=0)]


class Model(BaseModel):
    """A section of the file: unknown keys are mistakes, and nothing changes after loading.

    docs/configuration.md says what each setting means; a test compares it with these classes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class HttpServer(Model):
    """An upstream MCP server over Streamable HTTP."""

    url: Url
    headers: dict[str, str] = Field(default={}, repr=False)
    timeout: Seconds = 30.0
    enabled: bool = True


class StdioServer(Model):
    """An upstream MCP server that the relay starts and talks to over its standard streams."""

    command: Annotated[str, Field(min_length=1)]
    args: list[str] = []
    env: dict[str, str] = Field(default={}, repr=False)
    cwd: Folder | None = None
    isolation: Literal["shared", "token"] = "shared"
    timeout: Seconds = 30.0
    enabled: bool = True


def _transport(value: Any) -> str | None:
    keys = set(value) if isinstance(value, dict) else set()
    if ("url" in keys) == ("command" in keys):
        return None
    return "http" if "url" in keys else "stdio"


Server = Annotated[
    Annotated[HttpServer, Tag("http")] | Annotated[StdioServer, Tag("stdio")],
    Discriminator(
        _transport,
        custom_error_type="server",
        custom_error_message="a server has either 'url' (Streamable HTTP) or 'command' (stdio)",
    ),
]


class Token(Model):
    """A member's or an integration's credential; only the SHA-256 of the secret is kept."""

    id: Slug
    name: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Literal["member", "bot"] = "member"
    sha256: Annotated[str, Field(pattern=f"^{config_yaml.DIGEST.pattern}$", repr=False)]
    expires_at: Timestamp | None = None
    rate_limit: Rate | None = None


class Workspace(Model):
    """One URL, its servers and the tokens that may use it."""

    name: str = ""
    plan: str = "free"
    rate_limit: Rate | None = "120/minute"
    servers: dict[Slug, Server] = {}
    tokens: list[Token] = []

    def rate_of(self, token: Token) -> str | None:
        """The limit of `token`: its own if it has one (null included), else the workspace's."""
        return token.rate_limit if "rate_limit" in token.model_fields_set else self.rate_limit


class Plan(Model):
    """What a workspace may use; null is unlimited."""

    retention_days: Annotated[int, Field(ge=1)] | None = None
    calls_per_month: Annotated[int, Field(ge=0)] | None = None


PLANS: Final[Mapping[str, Plan]] = {
    "free": Plan(retention_days=7, calls_per_month=5_000),
    "starter": Plan(retention_days=30, calls_per_month=50_000),
    "pro": Plan(retention_days=90, calls_per_month=500_000),
    "business": Plan(retention_days=365, calls_per_month=5_000_000),
    "enterprise": Plan(),
}


class Jwt(Model):
    """How the analytics API verifies JWTs: by a shared secret (HS256) or a key set (RS256, ES256), never by both."""

    secret: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)
    jwks_url: Url | None = None
    issuer: str | None = None
    audience: str | None = None


class ApiSettings(Model):
    """The analytics API."""

    jwt: Jwt


class Otlp(Model):
    """Where spans and log records go: an OTLP/HTTP endpoint, without the /v1/… path."""

    endpoint: Url
    headers: dict[str, str] = Field(default={}, repr=False)
    timeout: Seconds = 10.0


class Observer(Model):
    """The telemetry plane."""

    listen: Listen = Address(host="127.0.0.1", port=9464)


class Journal(Model):
    """The append-only log between the planes."""

    fsync: Literal["interval", "always", "never"] = "interval"
    fsync_interval: Seconds = 1.0
    segment_bytes: Annotated[int, Field(ge=4096)] = 64 * 2**20
    segment_age: Seconds = 3600.0
    max_bytes: Annotated[int, Field(ge=8192)] = 4 * 2**30


class Metrics(Model):
    """The exposition."""

    birth_interval: Annotated[float, Field(ge=0)] = 10.0
    max_series: Annotated[int, Field(ge=1)] = 10_000
    max_duration_label_sets: Annotated[int, Field(ge=1)] = 600


class Requests(Model):
    """What the relay accepts."""

    max_bytes: Annotated[int, Field(ge=1024)] = 4 * 2**20
    allowed_origins: list[str] = []
    sessions: bool = True


class Redaction(Model):
    """What never reaches a signal, in addition to tokens, `Authorization` and keys."""

    patterns: list[Pattern] = []
    max_bytes: Annotated[int, Field(ge=64)] = 4096


class UsageLimits(Model):
    """Whether the relay enforces the plans' limits of calls a month."""

    enforce: bool = False
    fail: Literal["open", "closed"] = "open"


class Config(Model):
    """The whole file."""

    listen: Listen = Address(host="127.0.0.1", port=8080)
    observer: Observer = Observer()
    data_dir: Folder = Field(default=Path("data"), validate_default=True)
    ledger: LedgerUrl | None = Field(default=None, repr=False)
    api: ApiSettings | None = None
    otlp: Otlp | None = None
    journal: Journal = Journal()
    metrics: Metrics = Metrics()
    requests: Requests = Requests()
    redaction: Redaction = Redaction()
    usage: UsageLimits = UsageLimits()
    plans: dict[str, Plan] = {}
    workspaces: dict[Slug, Workspace] = {}

    def plan_of(self, workspace: Workspace) -> Plan:
        """The plan's limits; a plan in the file replaces the default of its name."""
        return self.plans.get(workspace.plan) or PLANS[workspace.plan]


_TAG_AT: Final = 4
"""workspaces, <slug>, servers, <slug>, and here pydantic says `http` or `stdio`."""


def _path(location: tuple[int | str, ...]) -> str:
    """For example `workspaces.engineering.tokens[0].sha256`: without pydantic's own `[key]` and union tags."""
    path = ""
    for i, part in enumerate(location):
        if part == "[key]" or (i == _TAG_AT and location[2] == "servers"):
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _mistakes(error: ValidationError) -> Iterator[Mistake]:
    for detail in error.errors(include_url=False, include_input=False):
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            message = "is not a setting: docs/configuration.md lists all that exist"
        elif detail["type"] == "missing":
            message = "is missing"
        elif detail["type"] == "string_pattern_mismatch" and detail["loc"][-1] == "sha256":
            message = "is not a SHA-256: write the 64 hex digits that `callscope token` prints"
        yield Mistake(_path(detail["loc"]), message)


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read and validate the file at `path`.

    Raises:
        ConfigError: the file cannot be used; it has every mistake that was found.
    """
    environ = os.environ if environ is None else environ
    unset: list[Mistake] = []
    try:
        tree = config_yaml.expand(config_yaml.parse(path.read_bytes()), environ, "", unset)
    except OSError as error:
        raise ConfigError(str(path), [Mistake("", f"cannot be read: {error.strerror}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [Mistake("", f"is not valid YAML: {config_yaml.describe(error)}")]) from error
    except RecursionError as error:
        raise ConfigError(str(path), [Mistake("", "is nested too deeply, or an alias contains itself")]) from error
    if not isinstance(tree, dict):
        raise ConfigError(str(path), [Mistake("", "must be a mapping of settings, for example 'workspaces: {}'")])
    mistakes = [*config_yaml.mistakes_between_parts(tree, PLANS), *_one_address_twice(tree)]
    try:
        config = Config.model_validate(tree, context=path.parent)
    except ValidationError as error:
        mistakes = [*_mistakes(error), *mistakes]
    unknown = [mistake.path for mistake in unset]  # what stands there is not known, so other mistakes there are noise
    mistakes = [*unset, *(mistake for mistake in dict.fromkeys(mistakes) if not _is_in(mistake.path, unknown))]
    if mistakes:
        raise ConfigError(str(path), mistakes)
    return config


def _one_address_twice(tree: Mapping[str, Any]) -> Iterator[Mistake]:
    """The relay and the observer cannot share a port. An invalid address is reported elsewhere."""
    section = tree.get("observer")
    observer = section.get("listen", Observer().listen) if isinstance(section, Mapping) else Observer().listen
    try:
        relay = _ADDRESS.validate_python(tree.get("listen", Config.model_fields["listen"].default))
        own = _ADDRESS.validate_python(observer)
    except ValidationError:
        return
    hosts = {"127.0.0.1" if host == "localhost" else host for host in (relay.host, own.host)}
    every = "::" in hosts or ("0.0.0.0" in hosts and not any(":" in host for host in hosts))
    if own.port == relay.port != 0 and (every or len(hosts) == 1):
        yield Mistake("observer.listen", f"uses the same port as 'listen' ({relay}): choose another one")


def _is_in(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of these places, or inside one."""
    return any(path == place or path.startswith((f"{place}.", f"{place}[")) for place in places)


async def changes(path: Path) -> AsyncIterator[Config | ConfigError]:
    """Yield the configuration, or its mistakes, each time the file's content changes, disappears or comes back."""
    content = _content(path)
    # The folder is watched, not the file: editors and ConfigMaps replace the file by a new one.
    async for _ in watchfiles.awatch(path.parent, debounce=200, step=50, recursive=False, rust_timeout=1000):
        changed = _content(path)
        if changed == content:
            continue
        content = changed
        try:
            yield load(path)
        except ConfigError as error:
            yield error


def _content(path: Path) -> bytes | None:
    """None if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
