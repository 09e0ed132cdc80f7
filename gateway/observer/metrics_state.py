"""The metrics sink's file: all series and the journal's positions that they stand for, written and read as one.

Counters go on where they were after a restart, because what is behind the positions is read again and nothing else.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Generic

import msgspec
from msgspec import Struct

from gateway.errors import StartError
from gateway.journal.reader import Positions
from gateway.observer.call_metrics import CallMetrics
from gateway.observer.series import ESTABLISHED, HistogramSeries, S, SeriesFamily, ValueSeries

logger = logging.getLogger(__name__)

VERSION: Final = 1


class SavedFamily(Struct, Generic[S], frozen=True, omit_defaults=True):
    """The series of one metric. They are restored only if it still has these labels and buckets."""

    labels: tuple[str, ...]
    series: list[S]
    buckets: tuple[float, ...] = ()


class MetricsState(Struct, frozen=True, kw_only=True):
    """The file's content, as MessagePack."""

    version: int = VERSION
    exposed_until: float
    """Seconds since the epoch until which the series may have been exposed after they were saved."""
    positions: Positions
    values: dict[str, SavedFamily[ValueSeries]]
    histograms: dict[str, SavedFamily[HistogramSeries]]


def encode(call_metrics: CallMetrics, positions: Positions, *, exposed_until: float) -> bytes:
    """The file's content."""
    return msgspec.msgpack.encode(
        MetricsState(
            exposed_until=exposed_until,
            positions=positions,
            values=_saved(call_metrics.values),
            histograms=_saved(call_metrics.histograms),
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
    _restore(call_metrics.values, state.values)
    _restore(call_metrics.histograms, state.histograms)
    for family in call_metrics.families:
        for series in family.series.values():
            if series.created != ESTABLISHED and series.created + birth_interval > state.exposed_until:
                series.created = now


def _saved(families: Mapping[str, SeriesFamily[S]]) -> dict[str, SavedFamily[S]]:
    return {
        name: SavedFamily(family.metric.labels, list(family.series.values()), family.metric.buckets)
        for name, family in families.items()
    }


def _restore(families: Mapping[str, SeriesFamily[S]], saved: Mapping[str, SavedFamily[S]]) -> None:
    for name, family in families.items():
        found = saved.get(name)
        if found is None or (found.labels, found.buckets) != (family.metric.labels, family.metric.buckets):
            logger.warning("%s starts from 0: the saved state does not have it, or with other labels or buckets", name)
        else:
            family.restore(found.series)
