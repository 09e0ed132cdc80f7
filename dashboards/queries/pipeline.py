"""What is on its way from the gateway to Loki and Tempo: does the Collector pass it on, and are the back ends there.

The series are the Collector's own, of version 0.159, and Prometheus' `up` of the jobs in `prometheus/prometheus.yml`.
Those are other targets than the gateway's, so no variable narrows them down.
"""

from typing import Final

from dashboards.promql import RATE, aggregate, highest, increase, total

QUEUE_SIZE: Final = "otelcol_exporter_queue_size"
QUEUE_CAPACITY: Final = "otelcol_exporter_queue_capacity"
SENT: Final = ("otelcol_exporter_sent_log_records", "otelcol_exporter_sent_spans")
SEND_FAILED: Final = ("otelcol_exporter_send_failed_log_records", "otelcol_exporter_send_failed_spans")
"""Refused for good by a back end; what is tried again is not counted."""
REFUSED: Final = ("otelcol_receiver_refused_log_records", "otelcol_receiver_refused_spans")
"""Refused by the Collector: the gateway sends it again."""
BACK_ENDS: Final = 'up{job=~"otel-collector|loki|tempo|prometheus|alertmanager|grafana"}'


def waiting() -> str:
    """Items in the queue of each exporter."""
    return total(QUEUE_SIZE, "exporter")


def used() -> str:
    """The share of its capacity that each exporter's queue uses; of several Collectors the fullest."""
    return highest(f"{QUEUE_SIZE} / {QUEUE_CAPACITY}", "exporter")


def lost() -> str:
    """Items that were given up, by exporter, over time: 0 in health.

    The counter is born with the first loss, which `increase` does not see: for one window, all of a new one counts.
    """
    born = " or ".join(f"({series} unless {series} offset {RATE})" for series in SEND_FAILED)
    more = " or ".join(increase(series, RATE) for series in SEND_FAILED)
    return f"{total(f'{born} or {more}', 'exporter')} or 0 * {waiting()}"


def refused(series: str) -> str:
    """Items that the Collector did not take, over time; `series` is one of `REFUSED`."""
    return f"{total(increase(series, RATE))} or 0 * {total(QUEUE_SIZE)}"


def passed_on() -> str:
    """Items a minute that a back end has taken, by exporter; an exporter that has sent nothing yet stands at 0."""
    sent = " or ".join(f"rate({series}[{RATE}])" for series in SENT)
    return f"60 * {total(sent, 'exporter')} or 0 * {waiting()}"


def answering() -> str:
    """1 while every target of a back end answers Prometheus, by job."""
    return aggregate("min", ("job",), BACK_ENDS)
