"""compose.yaml as a test reads it: variables are filled in, anchors resolved, short forms taken apart."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).parent.parent.parent
FILE: Final = ROOT / "compose.yaml"
GIVEN: Final = {"CALLSCOPE_JWT_SECRET": "0" * 64, "GRAFANA_ADMIN_PASSWORD": "chosen"}
"""What whoever starts it has to set."""
ANY_INTERFACE: Final = "0.0.0.0"
_VARIABLE: Final = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<operator>:?[-?])(?P<rest>[^}]*))?\}|(?=(?P<bare>\S)))"
)

Json = dict[str, Any]


class Mount(NamedTuple):
    """A volume of a service."""

    source: str
    """A path of the checkout, or a named volume."""
    target: str
    read_only: bool
    named: bool


class Published(NamedTuple):
    """A port that the host forwards."""

    host: str
    host_port: int
    port: int
    """Of the container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service; `tree` is what the file says."""

    name: str
    tree: Json

    @property
    def image(self) -> str:
        """Name and tag."""
        return str(self.tree["image"])

    @property
    def mounts(self) -> list[Mount]:
        """Files, folders and named volumes."""
        return [_mount(entry) for entry in self.tree.get("volumes", [])]

    @property
    def published(self) -> list[Published]:
        """Ports that can be reached from outside."""
        return [_published(entry) for entry in self.tree.get("ports", [])]

    @property
    def words(self) -> list[str]:
        """What its entrypoint and its command consist of; of a shell's script, each word of it."""
        words = [*self.tree.get("entrypoint", []), *self.tree.get("command", [])]
        return [word for line in words for word in (shlex.split(line, comments=True) if "\n" in line else [line])]

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of its processes."""
        found: dict[str, str] = self.tree.get("environment", {})
        return found

    def is_mounted(self, path: str) -> Mount | None:
        """The mount that a path of the container lies in: the innermost."""
        found = [mount for mount in self.mounts if path == mount.target or path.startswith(f"{mount.target}/")]
        return max(found, key=lambda mount: len(mount.target), default=None)

    def on_host(self, path: str) -> Path | None:
        """Where a path of the container is in the checkout, if it is mounted from there."""
        mount = self.is_mounted(path)
        if mount is None or mount.named:
            return None
        return ROOT / mount.source / path.removeprefix(mount.target).lstrip("/")


def interpolated(text: str, environ: Mapping[str, str]) -> str:
    """A text with its variables filled in, as far as the Compose Specification's `:-`, `:?` and `$$` go.

    Raises:
        KeyError: a variable that has to be set is not.
    """

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        assert match["name"], f"no variable, and no $$: {text[match.start() : match.end() + 10]!r}"
        if match["operator"] == ":-":
            return environ.get(match["name"]) or match["rest"]
        return environ[match["name"]]

    return _VARIABLE.sub(value, text)


def required() -> set[str]:
    """The variables without which nothing starts."""
    return {match["name"] for match in _VARIABLE.finditer(FILE.read_text()) if match["operator"] in (":?", "?")}


def read(environ: Mapping[str, str] = GIVEN) -> Json:
    """The whole file."""
    tree: Json = _filled(yaml.safe_load(FILE.read_text()), environ)
    return tree


def services() -> dict[str, Service]:
    """All services, by name."""
    return {name: Service(name=name, tree=tree) for name, tree in read()["services"].items()}


def scalars(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every value of a YAML tree that is no list and no mapping, as text, and where it stands."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from scalars(value, (*path, str(key)))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from scalars(value, (*path, str(i)))
    else:
        yield path, str(tree)


def _filled(tree: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(tree, dict):
        return {key: _filled(value, environ) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(value, environ) for value in tree]
    return interpolated(tree, environ) if isinstance(tree, str) else tree


def _mount(entry: str | Json) -> Mount:
    if isinstance(entry, dict):
        return Mount(entry["source"], entry["target"], entry.get("read_only", False), entry["type"] == "volume")
    source, target, *mode = entry.split(":")
    return Mount(source, target, mode == ["ro"], not source.startswith((".", "/")))


def _published(entry: str) -> Published:
    *host, outside, inside = entry.split(":")
    return Published(host[0] if host else ANY_INTERFACE, int(outside), int(inside))
