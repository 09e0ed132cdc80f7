"""A place in the journal as text."""

import pytest

from gateway.observer import cursor
from gateway.observer.cursor import MAX_WRITERS, PASSED

HERE = "0f3c8a21"


def writer(number: int) -> str:
    return f"{1_795_000_000_000 + number:013d}-relay-0-1"


def test_a_place_is_read_back_as_it_was() -> None:
    positions = {writer(0): 0, writer(1): 2**40, writer(2): PASSED}

    assert cursor.decode(cursor.encode(positions, HERE), HERE, positions) == positions


def test_a_place_among_very_many_writers_names_the_newest_and_the_older_ones_are_passed() -> None:
    positions = {writer(number): number for number in range(MAX_WRITERS + 3)}
    later = writer(MAX_WRITERS + 3)

    found = cursor.decode(cursor.encode(positions, HERE), HERE, [*positions, later])

    assert found == {name: PASSED if number < 3 else number for number, name in enumerate(positions)}
    assert len(cursor.encode(positions, HERE)) < cursor.MAX_LENGTH


def test_a_writer_that_a_short_place_does_not_name_is_new() -> None:
    assert cursor.decode(cursor.encode({writer(1): 5}, HERE), HERE, [writer(0), writer(1)]) == {writer(1): 5}


def test_a_place_in_another_journal_is_none_here_whatever_its_writers_are_called() -> None:
    elsewhere = cursor.encode({writer(1): 5}, "another")

    assert cursor.decode(elsewhere, HERE, [writer(1)]) is None
    assert cursor.decode(cursor.encode({}, "another"), HERE, []) is None
    assert cursor.decode(cursor.encode({}, HERE), HERE, []) == {}


def test_a_place_longer_than_any_is_refused() -> None:
    endless = cursor.encode({"x" * cursor.MAX_LENGTH: 1}, HERE)

    with pytest.raises(ValueError, match="is no position of this stream: send back the id of an event as it was"):
        cursor.decode(endless, HERE, [])
