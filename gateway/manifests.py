"""Dashboards and rules as Kubernetes objects: for Grafana's sidecar, and for the Prometheus Operator."""

import re
from pathlib import PurePath
from typing import Any, Final

import yaml

PREFIX: Final = "callscope-"
"""Objects of a namespace are told apart by their names alone."""
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")
"""What may not stand in an object's name (RFC 1123), but for the '-' that takes its place."""


def config_map(name: str, content: bytes) -> bytes:
    """A `ConfigMap` of the dashboard in the file `name`, with the label that Grafana's sidecar looks for.

    It is ASCII, whatever the dashboard is: the rest is escaped.
    """
    metadata = {"name": _object_name(name), "labels": {"grafana_dashboard": "1"}}
    return _dumped({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {name: content.decode()}})


def prometheus_rule(name: str, content: bytes) -> bytes:
    """A `PrometheusRule` of the rules in the file `name`."""
    return _dumped(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": _object_name(name)},
            "spec": yaml.safe_load(content),
        }
    )


def file_name(name: str) -> str:
    """What the manifest of a file is called."""
    return f"{PurePath(name).stem}.yml"


def _object_name(file: str) -> str:
    return PREFIX + _NO_NAME.sub("-", PurePath(file).stem.lower().removeprefix(PREFIX)).strip("-")


def _dumped(manifest: dict[str, Any]) -> bytes:
    return yaml.safe_dump(manifest, sort_keys=False, width=120).encode("ascii")
