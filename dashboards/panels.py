"""Panels, each of one kind of question: a number, a course of time, a ranking, a distribution, states, log lines."""

from collections.abc import Mapping, Sequence

from dashboards.fields import (
    CALM,
    COLORS,
    GOOD,
    LEGEND,
    VISIBLE,
    Links,
    Steps,
    defaults_of,
    last_value,
    override,
    texts,
    thresholds,
)
from dashboards.grafanalib_ext import Json, LokiTarget, Panel, Target, TempoTarget


def stat(
    title: str,
    description: str,
    *targets: Target,
    unit: str,
    links: Links = (),
    steps: Steps = (),
    first: str = CALM,
    since: str | None = None,
    width: int = 4,
    height: int = 4,
    decimals: int | None = None,
    empty: str = "no data",
    names: Mapping[int, str] | None = None,
) -> Panel:
    """A number; `since` is a time range of its own, such as `now/d`; `empty` is shown when there is none.

    `names` are what is shown in place of certain values.
    """
    options = {
        "reduceOptions": last_value(),
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    defaults = defaults_of(unit, links, steps, first, decimals=decimals, noValue=empty, color={"mode": "thresholds"})
    if names:
        defaults["mappings"] = texts(names)
    return Panel(
        type="stat",
        title=title,
        description=description,
        targets=targets,
        options=options,
        defaults=defaults,
        since=since,
        width=width,
        height=height,
    )


def gauge(
    title: str, description: str, *targets: Target, unit: str, steps: Steps, links: Links = (), width: int = 6
) -> Panel:
    """A number that has a highest value: 1 is all."""
    options = {
        "reduceOptions": last_value(),
        "orientation": "auto",
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
        "minVizWidth": 75,
        "minVizHeight": 75,
    }
    defaults = defaults_of(unit, links, steps, GOOD, min=0, max=1, noValue="unlimited", color={"mode": "thresholds"})
    return Panel(
        type="gauge",
        title=title,
        description=description,
        targets=targets,
        options=options,
        defaults=defaults,
        width=width,
    )


def chart(
    title: str,
    description: str,
    *targets: Target,
    unit: str,
    links: Links = (),
    steps: Steps = (),
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    bars: bool = False,
    since: str | None = None,
    interval: str | None = None,
) -> Panel:
    """A course of time. Steps are drawn as lines."""
    options = {
        "legend": {**LEGEND, "displayMode": "table", "calcs": ["mean", "max", "lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = defaults_of(
        unit,
        links,
        steps,
        GOOD,
        color={"mode": "palette-classic"},
        min=0,
        custom=_drawn(steps, stacked=stacked, bars=bars),
    )
    return Panel(
        type="timeseries",
        title=title,
        description=description,
        targets=targets,
        options=options,
        defaults=defaults,
        overrides=_colored(targets),
        since=since,
        interval=interval,
        width=width,
        height=height,
    )


def _drawn(steps: Steps, *, stacked: bool, bars: bool) -> Json:
    """How a chart's series are drawn."""
    return {
        "axisPlacement": "auto",
        "axisLabel": "",
        "axisColorMode": "text",
        "axisBorderShow": False,
        "axisCenteredZero": False,
        "axisSoftMin": 0,
        "barAlignment": 0,
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 80 if bars else 25 if stacked else 8,
        "gradientMode": "none",
        "hideFrom": VISIBLE,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 5,
        "scaleDistribution": {"type": "linear"},
        "showPoints": "never" if bars else "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }


def _colored(targets: Sequence[Target]) -> list[Json]:
    """The colors of series that mean the same in every panel."""
    named = {target.legend for target in targets if not isinstance(target, TempoTarget)}
    if "{{status}}" in named:
        named |= {"success", "error"}
    return [
        override(name, color={"mode": "fixed", "fixedColor": color}) for name, color in COLORS.items() if name in named
    ]


def ranking(
    title: str,
    description: str,
    target: Target,
    *,
    unit: str,
    links: Links,
    steps: Steps = (),
    first: str = CALM,
    width: int = 8,
    height: int = 9,
    since: str | None = None,
) -> Panel:
    """Bars, the longest first; a click leads to what is behind one."""
    options = {
        "reduceOptions": last_value(),
        "displayMode": "basic",
        "orientation": "horizontal",
        "valueMode": "color",
        "namePlacement": "left",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 32,
        "legend": {**LEGEND, "showLegend": False},
    }
    defaults = defaults_of(unit, links, steps, first, min=0, noValue="none", color={"mode": "thresholds"})
    return Panel(
        type="bargauge",
        title=title,
        description=description,
        targets=[target],
        options=options,
        defaults=defaults,
        since=since,
        width=width,
        height=height,
    )


def heatmap(title: str, description: str, target: Target, *, unit: str, links: Links = (), width: int = 12) -> Panel:
    """How values are spread, over time."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short", "decimals": 0},
        "color": {
            "mode": "scheme",
            "scheme": "Spectral",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": True,
            "fill": "dark-orange",
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
    }
    custom = {"scaleDistribution": {"type": "linear"}, "hideFrom": VISIBLE}
    defaults = {"unit": unit, "links": list(links), "custom": custom}
    return Panel(
        type="heatmap",
        title=title,
        description=description,
        targets=[target],
        options=options,
        defaults=defaults,
        width=width,
    )


def states(
    title: str,
    description: str,
    target: Target,
    *,
    names: Mapping[int, tuple[str, str]],
    links: Links = (),
    width: int = 24,
) -> Panel:
    """When something was in which state; `names` are each value's name and color."""
    texts = {
        str(value): {"text": text, "color": color, "index": place}
        for place, (value, (text, color)) in enumerate(names.items())
    }
    options = {
        "alignValue": "left",
        "legend": {**LEGEND, "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 70, "lineWidth": 0, "hideFrom": VISIBLE}
    defaults = {
        "unit": "none",
        "links": list(links),
        "color": {"mode": "thresholds"},
        "mappings": [{"type": "value", "options": texts}],
        "thresholds": thresholds((), "text"),
        "custom": custom,
    }
    return Panel(
        type="state-timeline",
        title=title,
        description=description,
        targets=[target],
        options=options,
        defaults=defaults,
        width=width,
    )


def logs(title: str, description: str, target: LokiTarget, *, height: int = 16, width: int = 24) -> Panel:
    """Log lines, the newest first; a click shows every attribute of one."""
    options = {
        "dedupStrategy": "none",
        "enableInfiniteScrolling": True,
        "enableLogDetails": True,
        "prettifyLogMessage": False,
        "showCommonLabels": False,
        "showLabels": False,
        "showLogContextToggle": True,
        "showTime": True,
        "sortOrder": "Descending",
        "wrapLogMessage": True,
    }
    return Panel(
        type="logs", title=title, description=description, targets=[target], options=options, width=width, height=height
    )


def waterfall(title: str, description: str, trace: str, *, height: int = 14) -> Panel:
    """The spans of one trace."""
    return Panel(type="traces", title=title, description=description, targets=[TempoTarget(query=trace)], height=height)
