"""Which ports the services of compose.yaml listen on, each read from its own configuration."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from gateway.config import load
from tests.stack.compose_file import GIVEN, ROOT, Service, scalars, services

BY_DEFAULT: Final = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
"""Without a flag or a variable that says otherwise: the documentation of --web.listen-address, and of http_port."""
CHANGED_BY: Final = ("--web.listen-address", "GF_SERVER_HTTP_PORT")
ADDRESS: Final = re.compile(r"(?<![\w.-])(?P<host>[A-Za-z][\w-]*(?:\.[\w-]+)*):(?P<port>\d{2,5})(?![\w.])")
_ENVIRONMENT: Final = re.compile(r"\$\{(?:env:)?\w+:-([^}]*)\}")
"""`${NAME:-default}` of Loki, `${env:NAME:-default}` of the Collector."""


class Named(NamedTuple):
    """An address that a configuration names."""

    file: str
    at: str
    """Where in the file."""
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.file} {self.at}: {self.host}:{self.port}"


def tree(path: str) -> Any:
    """A YAML file of the checkout, its variables at their defaults, as no service of compose.yaml sets any of them."""
    return yaml.safe_load(_ENVIRONMENT.sub(r"\1", (ROOT / path).read_text()))


def listening() -> dict[str, set[int]]:
    """The ports at which each service can be reached by the others."""
    stack = services()
    gateway = load(ROOT / "stack" / "gateway" / "callscope.yaml", GIVEN)
    collector, loki, tempo = (tree(f"{name}/config.yaml") for name in ("otel-collector", "loki", "tempo"))
    reader = collector["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
    return {
        "gateway": {_open(str(gateway.listen)), _open(str(gateway.observer.listen))},
        "demo": {_open(_after("--observer", stack["demo"].words))},
        "otel-collector": {
            _open(collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]),
            _open(collector["extensions"]["health_check"]["endpoint"]),
            _open(f"{reader['host']}:{reader['port']}"),
        },
        "loki": {_open("{http_listen_address}:{http_listen_port}".format(**loki["server"]))},
        "tempo": {
            int(tempo["server"]["http_listen_port"]),  # on every interface: http_listen_address is "" by default
            _open(tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]),
        },
        **{name: {_default(stack[name], port)} for name, port in BY_DEFAULT.items()},
    }


def named() -> list[Named]:
    """Every `host:port` in compose.yaml and in the configuration of a service."""
    found = []
    for name, service in services().items():
        asked = {key: service.tree.get(key) for key in ("command", "environment", "healthcheck")}
        found += [Named("compose.yaml", f"{name}.{at}", host, port) for at, host, port in _in(asked)]
    for path in configurations():
        text = str(path.relative_to(ROOT))
        found += [Named(text, at, host, port) for at, host, port in _in(tree(text))]
    return found


def configurations() -> list[Path]:
    """The YAML files that the services mount, the gateway's included."""
    roots = [ROOT / mount.source for service in services().values() for mount in service.mounts if not mount.named]
    files = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))]
    return sorted({path for path in files if path.suffix in (".yml", ".yaml")})


def _in(part: Any) -> Iterator[tuple[str, str, int]]:
    for at, text in scalars(part):
        for match in ADDRESS.finditer(text):
            yield ".".join(at), match["host"], int(match["port"])


def _open(address: str) -> int:
    """The port of an address that others reach, too."""
    host, _, port = address.rpartition(":")
    assert host in ("0.0.0.0", ""), f"{address} cannot be reached from other containers"
    return int(port)


def _after(flag: str, words: list[str]) -> str:
    return words[words.index(flag) + 1]


def _default(service: Service, port: int) -> int:
    changed = [text for text in (*service.words, *service.environment) if text.startswith(CHANGED_BY)]
    assert not changed, f"{service.name} listens elsewhere: {changed}"
    return port
