"""The metrics sink's file: all series and the journal's positions that they stand for, written and read as one.

Counters go on where they were after a restart, because what is behind the positions is read again and nothing else.
"""

import logging
import os
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
    """The label names: series with others are not taken over."""
    series: list[Value]


class SavedHistograms(Struct, frozen=True):
    """The series of one histogram."""

    labels: tuple[str, ...]
    buckets: tuple[float, ...]
    series: list[Histogram]


class State(Struct, frozen=True, kw_only=True):
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
        State(
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


def write(path: Path, data: bytes) -> None:
    """Replace the file: whole, and on the disk when this returns.

    Raises:
        OSError: it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Unusable(Exception):  # noqa: N818 - an outcome: the file has been set aside
    """The file was there and held no state; it has another name now."""


def read(path: Path) -> State | None:
    """What was saved; None if there is no file.

    Raises:
        Unusable: it was no state of this version.
        StartError: the file cannot be read, or not be set aside.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(
            f"{path}: the metrics' state cannot be read: {error.strerror}; mend that or move it"
        ) from error
    try:
        state = msgspec.msgpack.decode(data, type=State)
        if state.version != VERSION:
            raise msgspec.ValidationError(f"version {state.version}, not {VERSION}")
    except msgspec.MsgspecError as error:
        aside = path.with_name(f"{path.name}.corrupt")
        try:
            path.replace(aside)
        except OSError as failure:
            raise StartError(f"{path}: not the metrics' state ({error}), and cannot be moved: {failure}") from failure
        logger.error(  # noqa: TRY400 - the decoder's reason is all
            "%s is no state of the metrics (%s): it is %s now, and the counters begin anew", path, error, aside
        )
        raise Unusable(str(error)) from error
    return state


def restore(call_metrics: CallMetrics, state: State, *, now: float, birth_interval: float) -> None:
    """Take the saved series over; those of a metric that has other labels or buckets now begin anew.

    A series that nobody can have seen with its value is newborn again: nobody may have seen its 0 either.
    """
    for name, family in call_metrics.values.items():
        saved = state.values.get(name)
        if saved is None or saved.labels != family.metric.labels:
            _say_anew(name)
        else:
            family.restore(saved.series)
    for name, histograms in call_metrics.histograms.items():
        found = state.histograms.get(name)
        shape = (histograms.metric.labels, histograms.metric.buckets)
        if found is None or (found.labels, found.buckets) != shape:
            _say_anew(name)
        else:
            histograms.restore(found.series)
    for kept in call_metrics.families:
        for series in kept.series.values():
            if series.birth != ESTABLISHED and series.birth + birth_interval > state.exposed_until:
                series.birth = now


def _say_anew(name: str) -> None:
    logger.warning("%s begins anew: the saved state has it with other labels or buckets, or not at all", name)
