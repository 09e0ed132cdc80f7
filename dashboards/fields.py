"""How values look: units, colors, thresholds, links."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafanalib import core

from dashboards.grafanalib_ext import Json

Links = Sequence[core.DataLink]
Steps = Sequence[tuple[float, str]]
"""Thresholds: from which value on which color."""

GOOD: Final = "green"
FAIR: Final = "orange"
BAD: Final = "red"
CALM: Final = "blue"
FAILURES: Final[Steps] = ((0.01, FAIR), (0.05, BAD))
"""Shares of failed calls that deserve a look, or an alarm."""
LATENCY: Final[Steps] = ((1, FAIR), (5, BAD))
"""Seconds."""
SHARE_OF_LIMIT: Final[Steps] = ((0.8, FAIR), (1, BAD))
COLORS: Final = {"success": GOOD, "error": BAD, "p50": GOOD, "p95": FAIR, "p99": BAD, "average": CALM}
"""Of series that mean the same in every panel."""
LEGEND: Final = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
VISIBLE: Final = {"legend": False, "tooltip": False, "viz": False}
"""Where a series is hidden."""


def thresholds(steps: Steps, first: str = GOOD) -> Json:
    """`first` is the color of what is below all steps."""
    above = [{"color": color, "value": value} for value, color in steps]
    return {"mode": "absolute", "steps": [{"color": first, "value": None}, *above]}


def texts(names: Mapping[int, str]) -> list[Json]:
    """What is shown in place of certain values."""
    return [{"type": "value", "options": {str(value): {"text": text} for value, text in names.items()}}]


def override(name: str, **properties: Any) -> Json:
    """What is different of the field with this name; `__` stands for a dot in a property."""
    changed = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": changed}


def defaults_of(unit: str, links: Links, steps: Steps, first: str, **more: Any) -> Json:
    """A field's properties; `first` is the color of what is below all `steps`."""
    return {"unit": unit, "links": list(links), "thresholds": thresholds(steps, first), **more}


def last_value() -> Json:
    """Each series is shown by its last value."""
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}
