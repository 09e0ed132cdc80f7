"""The metrics sink's file: all series and the journal's positions that they stand for, written and read as one.

Counters go on where they were after a restart, because what is behind the positions is read again and nothing else.
"""

import logging
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway.errors import StartError
from gateway.journal.reader import Positions
from gateway.observer.call_metrics import CallMetrics
from gateway.observer.series import ESTABLISHED, Histogram, Value

logger = logging.getLogger(__name__)

VERSION: Final = 1


class SavedValues(Struct, frozen=True):
    """The series of one counter."""

    labels: tuple[str, ...]
    """The label names: series with others are not restored."""
    series: list[Value]


class SavedHistograms(Struct, frozen=True):
    """The series of one histogram."""

    labels: tuple[str, ...]
    buckets: tuple[float, ...]
    series: list[Histogram]


class MetricsState(Struct, frozen=True, kw_only=True):
    """The file's content, as MessagePack."""

    version: int = VERSION
    exposed_until: float
    """Seconds since the epoch until which the series may have been exposed after they were saved."""
    positions: Positions
    values: dict[str, SavedValues]
    histograms: dict[str, SavedHistograms]


def encode(call_metrics: CallMetrics, positions: Positions, *, exposed_until: float) -> bytes:
    """The file's content."""
    return msgspec.msgpack.encode(
        MetricsState(
            exposed_until=exposed_until,
            positions=positions,
            values={
                name: SavedValues(family.metric.labels, list(family.series.values()))
                for name, family in call_metrics.values.items()
            },
            histograms={
                name: SavedHistograms(family.metric.labels, family.metric.buckets, list(family.series.values()))
                for name, family in call_metrics.histograms.items()
            },
        )
    )


class UnusableStateError(Exception):
    """The file held no state of this version. It has another name now."""


def read(path: Path) -> MetricsState | None:
    """What was saved; None if there is no file.

    Raises:
        UnusableStateError: it was no state of this version.
        StartError: the file cannot be read or renamed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(
            f"{path}: the metrics' state cannot be read: {error.strerror}; repair or move the file"
        ) from error
    try:
        state = msgspec.msgpack.decode(data, type=MetricsState)
        if state.version != VERSION:
            raise msgspec.ValidationError(f"version {state.version}, not {VERSION}")
    except msgspec.MsgspecError as error:
        aside = path.with_name(f"{path.name}.corrupt")
        try:
            path.replace(aside)
        except OSError as failure:
            raise StartError(f"{path}: not the metrics' state ({error}), and cannot be moved: {failure}") from failure
        logger.error(  # noqa: TRY400 - the decoder's reason is all
            "%s does not hold the metrics' state (%s): it is renamed to %s, and the counters start from 0",
            path,
            error,
            aside,
        )
        raise UnusableStateError(str(error)) from error
    return state


def restore(call_metrics: CallMetrics, state: MetricsState, *, now: float, birth_interval: float) -> None:
    """Take over the saved series, except those of a metric that has other labels or buckets now.

    A series that nobody can have seen with its value is new again: perhaps nobody has seen its 0 either.
    """
    for name, family in call_metrics.values.items():
        values = state.values.get(name)
        if values is None or values.labels != family.metric.labels:
            _log_reset(name)
        else:
            family.restore(values.series)
    for name, histograms in call_metrics.histograms.items():
        saved = state.histograms.get(name)
        if saved is None or (saved.labels, saved.buckets) != (histograms.metric.labels, histograms.metric.buckets):
            _log_reset(name)
        else:
            histograms.restore(saved.series)
    for restored in call_metrics.families:
        for series in restored.series.values():
            if series.created != ESTABLISHED and series.created + birth_interval > state.exposed_until:
                series.created = now


def _log_reset(name: str) -> None:
    logger.warning("%s starts from 0: the saved state does not have it, or with other labels or buckets", name)
