"""A place in the journal as text."""

import pytest

from gateway.observer import cursor
from gateway.observer.cursor import MAX_WRITERS, PASSED


def writer(number: int) -> str:
    return f"{1_795_000_000_000 + number:013d}-relay-0-1"


def test_a_place_is_read_back_as_it_was() -> None:
    positions = {writer(0): 0, writer(1): 2**40, writer(2): PASSED}

    assert cursor.decode(cursor.encode(positions), positions) == positions


def test_a_place_among_very_many_writers_names_the_newest_and_the_older_ones_are_passed() -> None:
    positions = {writer(number): number for number in range(MAX_WRITERS + 3)}
    later = writer(MAX_WRITERS + 3)

    found = cursor.decode(cursor.encode(positions), [*positions, later])

    assert found == {name: PASSED if number < 3 else number for number, name in enumerate(positions)}
    assert len(cursor.encode(positions)) < cursor.MAX_LENGTH


def test_a_writer_that_a_short_place_does_not_name_is_new() -> None:
    assert cursor.decode(cursor.encode({writer(1): 5}), [writer(0), writer(1)]) == {writer(1): 5}


def test_a_place_longer_than_any_is_refused() -> None:
    endless = cursor.encode({"x" * cursor.MAX_LENGTH: 1})

    with pytest.raises(ValueError, match="is no position of this stream: send back the id of an event as it was"):
        cursor.decode(endless, [])
