"""The series that there are, and their labels: of the gateway, Prometheus, the Collector, and recording rules."""

from typing import Final

from gateway.observer.signals import METRICS, PROCESS_METRICS

TARGET: Final = {"job", "instance"}
"""What Prometheus gives every series."""
OF_PROMETHEUS: Final = {
    "up": TARGET,
    "scrape_duration_seconds": TARGET,
    "scrape_samples_post_metric_relabeling": TARGET,
    "ALERTS": {"alertname", "alertstate", "severity", "workspace", "server"} | TARGET,
    **dict.fromkeys(PROCESS_METRICS, TARGET),
}
"""Series that Prometheus itself writes, or of every process, with the labels that may be asked for."""
_SENT: Final = {"exporter", "server_address", "server_port", "url_path"} | TARGET
_QUEUED: Final = {"data_type", "exporter"} | TARGET
_RECEIVED: Final = {"receiver", "transport"} | TARGET
OF_COLLECTOR: Final = {
    "otelcol_exporter_queue_size": _QUEUED,
    "otelcol_exporter_queue_capacity": _QUEUED,
    "otelcol_exporter_sent_log_records": _SENT,
    "otelcol_exporter_sent_spans": _SENT,
    "otelcol_exporter_send_failed_log_records": _SENT,
    "otelcol_exporter_send_failed_spans": _SENT,
    "otelcol_receiver_refused_log_records": _RECEIVED,
    "otelcol_receiver_refused_spans": _RECEIVED,
}
"""Series of the OpenTelemetry Collector 0.159, configured as ours; tests/stack/test_collector_metrics.py sees each."""
LABELS: Final = {label for metric in METRICS for label in metric.labels} | TARGET | {"le"}
"""Of all series together."""


def exposed() -> dict[str, set[str]]:
    """The labels of every sample, by its name."""
    found: dict[str, set[str]] = {}
    for metric in METRICS:
        labels = {*metric.labels, *TARGET}
        if metric.kind == "histogram":
            found |= {metric.name + "_bucket": labels | {"le"}, metric.name + "_sum": labels}
            found[metric.name + "_count"] = labels
        else:
            found[metric.name] = labels
    return found | OF_PROMETHEUS | OF_COLLECTOR


def labels_of(name: str) -> set[str] | None:
    """The labels of a series; None if there is none of that name. A recording rule's name begins with its labels."""
    if ":" in name:
        return {*level(name), "job"}
    return exposed().get(name)


def level(name: str) -> list[str]:
    """The labels that a recording rule's name says that it keeps: `workspace_error_type:…` has two."""
    words = name.partition(":")[0].split("_")
    labels = []
    while words:
        length = 2 if "_".join(words[:2]) in LABELS else 1
        labels.append("_".join(words[:length]))
        words = words[length:]
    return labels
