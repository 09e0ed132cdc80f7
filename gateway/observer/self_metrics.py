"""What the gateway tells of itself: is telemetry late, is any of it lost, which version runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from gateway.observer import signals
from gateway.observer.config_reload import ConfigReloader
from gateway.observer.exposition import FamiliesCollector
from gateway.observer.samples import Family, Reading
from gateway.observer.series import Labels
from gateway.observer.sinks import SinkWorker

METRICS: Final = (
    signals.SINK_LAG_SECONDS,
    signals.SINK_LAG_BYTES,
    signals.EVENT_LOOP_LAG,
    signals.CONFIG_RELOADS,
    signals.CONFIG_VALID,
    signals.BUILD_INFO,
)

LoopLags = Callable[[], Mapping[str, float | None]]
"""The event loops' lag in seconds by kind of process; None of a kind of which none runs."""


def internals_collector(
    workers: Sequence[SinkWorker], reloader: ConfigReloader, loop_lags: LoopLags, *, version: str
) -> FamiliesCollector:
    """A collector of the sinks' and the event loops' lag, and of what became of the configuration file's changes."""

    def read() -> Iterator[Family]:
        yield Family(signals.SINK_LAG_SECONDS, [Reading((worker.sink.name,), worker.lag_seconds) for worker in workers])
        yield Family(signals.SINK_LAG_BYTES, [Reading((worker.sink.name,), worker.lag_bytes) for worker in workers])
        lags = loop_lags().items()
        yield Family(signals.EVENT_LOOP_LAG, [Reading((kind,), lag) for kind, lag in lags if lag is not None])
        outcomes = reloader.outcomes
        yield Family(signals.CONFIG_RELOADS, [Reading((status,), outcomes[status]) for status in ("success", "error")])
        yield Family(signals.CONFIG_VALID, [Reading((), int(reloader.valid))])
        yield Family(signals.BUILD_INFO, [Reading(("observer", version), 1)])

    return FamiliesCollector(METRICS, read)


def losses(
    workers: Sequence[SinkWorker], over_max_bytes: Mapping[str, int], refused: Mapping[str, Mapping[str, int]]
) -> dict[Labels, int]:
    """What each sink has lost since this process began, by sink and reason: see `MetricsSink.count_also`.

    `over_max_bytes` is by sink: calls that the journal deleted unread. `refused` is by sink and reason: records that a
    back end did not take.
    """
    lost: dict[Labels, int] = {}
    for worker in workers:
        name = worker.sink.name
        lost[name, "corrupt"] = worker.corrupt_lines
        lost[name, "max_bytes"] = over_max_bytes.get(name, 0)
    lost.update(((sink, reason), records) for sink, reasons in refused.items() for reason, records in reasons.items())
    return lost
