"""What all dashboards have in common."""

from collections.abc import Collection, Sequence
from typing import Final

from grafanalib import core

from dashboards import variables
from dashboards.annotations import annotations
from dashboards.grafanalib_ext import Json, Variable, dashboard_json
from dashboards.layout import Section, lay_out
from dashboards.links import TAG, TITLES, Uid, navigation, opened

REFRESH: Final = ["5s", "10s", "30s", "1m", "5m", "15m", "1h"]


def board(
    uid: Uid,
    description: str,
    sections: Sequence[Section],
    *,
    filters: Collection[str] = (),
    more: Sequence[Variable] = (),
    first: str = "prometheus",
    sources: Collection[str] = ("prometheus",),
    since: str = "now-24h",
    refresh: str = "30s",
) -> Json:
    """A dashboard, as Grafana stores it.

    Args:
        uid: which one.
        description: what it answers.
        sections: its panels.
        filters: those of workspace, server, tool and member that narrow its queries down.
        more: variables of its own.
        first: the kind of data source that most of its queries are for.
        sources: the kinds that it asks.
        since: the beginning of the time range that it opens with.
        refresh: how often it asks again.
    """
    dashboard = core.Dashboard(
        uid=uid.value,
        title=TITLES[uid],
        description=description,
        tags=[TAG],
        panels=lay_out(sections),
        links=navigation(uid),
        templating=core.Templating(
            list=[*variables.filters(filters), *more, *variables.data_sources(first, sources)],
        ),
        annotations=core.Annotations(list=annotations()),
        time=core.Time(since, "now"),
        timePicker=core.TimePicker(refreshIntervals=REFRESH, timeOptions=[]),
        timezone="browser",
        refresh=refresh,
        graphTooltip=core.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
    )
    return opened(dashboard_json(dashboard), filters)
