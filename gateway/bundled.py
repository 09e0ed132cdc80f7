"""The files that this version ships for other programs: dashboards, rules, and the runbook that alerts link to.

A wheel has them in `gateway/_bundled/`; a checkout has them where they are generated or written. They can be written
as they are, or as Kubernetes objects for Grafana's sidecar and the Prometheus Operator.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any, Final, Literal

import yaml

from gateway.errors import CallscopeError

Kind = Literal["dashboards", "rules", "runbook"]

RUNBOOK: Final = "docs/runbook.md"
"""Where every alert's `runbook_url` points, before `#` and the name of its section."""
PREFIX: Final = "callscope-"
"""Kubernetes objects of a namespace differ by their names alone."""

_CHECKOUT: Final = Path(__file__).parent.parent
_SOURCES: Final[dict[Kind, tuple[str, tuple[str, ...]]]] = {
    "dashboards": ("dashboards/generated", (".json",)),
    "rules": ("prometheus/rules", (".yml", ".yaml")),
    "runbook": ("docs", ("runbook.md",)),
}
"""The folder in a checkout (pyproject.toml names it too), and how the files' names end."""
_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's, if PyYAML was built with it: the dashboards take 40 ms instead of 2 s."""
_URL: Final = re.compile(r"https?://[^\s#\"'<>\\^`{|}\x00-\x1f\x7f-\U0010ffff]+")
"""RFC 3986 without a fragment. It needs no quotes in YAML, and Prometheus does not take it for a template."""


def bundled(kind: Kind) -> dict[str, bytes]:
    """The files of a kind, by name.

    Raises:
        CallscopeError: this installation has none.
    """
    source, suffixes = _SOURCES[kind]
    for folder in (files("gateway") / "_bundled" / kind, _CHECKOUT / source):
        if folder.is_dir():
            found = {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith(suffixes)}
            if found:
                return dict(sorted(found.items()))
    raise CallscopeError(f"this installation has no {kind}: it was built without {source}")


def link_runbook(url: str, rules: Mapping[str, bytes]) -> dict[str, bytes]:
    """The rules with `url` in place of `RUNBOOK`, otherwise byte for byte as they were.

    Raises:
        CallscopeError: `url` is not one that can be followed by `#` and a section's name.
    """
    if not _URL.fullmatch(url):
        raise CallscopeError(
            f"--runbook: {url!r} is not the URL of a page: write for example https://wiki.example.com/callscope; "
            "each alert adds '#' and its name in lower case"
        )
    return {name: content.replace(RUNBOOK.encode(), url.encode()) for name, content in rules.items()}


def config_map(name: str, dashboard: bytes) -> bytes:
    """A `ConfigMap` of the dashboard in the file `name`, with the label that Grafana's sidecar looks for."""
    labels = {"grafana_dashboard": "1"}
    return _manifest("v1", "ConfigMap", name, {"labels": labels}, {"data": {name: dashboard.decode()}})


def prometheus_rule(name: str, rules: bytes) -> bytes:
    """A `PrometheusRule` of the rules in the file `name`."""
    return _manifest("monitoring.coreos.com/v1", "PrometheusRule", name, {}, {"spec": yaml.safe_load(rules)})


def _manifest(api_version: str, kind: str, file: str, metadata: dict[str, Any], content: dict[str, Any]) -> bytes:
    """A Kubernetes object, named for the file that it is made of (RFC 1123). It is ASCII: YAML escapes the rest."""
    name = re.sub("[^a-z0-9]+", "-", PurePath(file).stem.lower().removeprefix(PREFIX)).strip("-")
    manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"name": PREFIX + name, **metadata}, **content}
    return yaml.dump(manifest, Dumper=_DUMPER, sort_keys=False, width=120).encode("ascii")


def write(what: Kind, contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files into `folder`, which is created if it does not exist; returns their paths.

    Raises:
        CallscopeError: `folder` cannot be written.
    """
    paths = [folder / name for name in contents]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, contents.values(), strict=True):
            path.write_bytes(content)
    except OSError as error:
        raise CallscopeError(f"{error.filename or folder}: {what} cannot be written: {error.strerror}") from error
    return paths
