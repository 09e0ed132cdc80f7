"""Gateway's section on what has left the gateway: does the Collector pass it on, and are the back ends there."""

from dashboards.fields import BAD, FAIR, GOOD, Steps
from dashboards.layout import Section
from dashboards.panels import chart, states
from dashboards.queries import pipeline as query
from dashboards.targets import over_time

QUEUE_USED: Steps = ((0.5, FAIR), (0.9, BAD))
"""CallscopeCollectorQueueFilling is from half on."""


def on_their_way() -> Section:
    """Queues, losses and back ends."""
    name = "{{exporter}}"
    refused = zip(query.REFUSED, ("log records: refused", "spans: refused"), strict=True)
    return Section(
        "Traces and logs on their way",
        [
            chart(
                "Waiting in the Collector",
                "Spans and log records that the Collector has and no back end has taken: no dashboard shows them yet.",
                over_time(query.waiting(), name),
                unit="short",
                width=6,
            ),
            chart(
                "Queues in use",
                "The share of its queue that an exporter uses. When it is full, the gateway's journal keeps the rest.",
                over_time(query.used(), name),
                unit="percentunit",
                steps=QUEUE_USED,
                width=6,
            ),
            chart(
                "Passed on",
                "Spans and log records a minute that a back end has taken.",
                over_time(query.passed_on(), name),
                unit="cpm",
                width=6,
            ),
            chart(
                "Lost or refused",
                "Lost: a back end refused it for good. Refused: the Collector had no room, and is sent it again.",
                over_time(query.lost(), "{{exporter}}: lost"),
                *(over_time(query.refused(series), legend) for series, legend in refused),
                unit="short",
                bars=True,
                stacked=True,
                width=6,
            ),
        ],
        [
            states(
                "Back ends",
                "Whether Prometheus reaches the Collector and what stands behind it.",
                over_time(query.answering(), "{{job}}"),
                names={1: ("up", GOOD), 0: ("down", BAD)},
            ),
        ],
    )
