"""A position in the journal as text."""

import pytest

from gateway.observer.journal_tail import MAX_CURSOR_LENGTH, MAX_WRITERS, PASSED, decode_cursor, encode_cursor

HERE = "0f3c8a21"


def writer(number: int) -> str:
    return f"{1_795_000_000_000 + number:013d}-relay-0-1"


def test_a_position_is_read_back_as_it_was() -> None:
    positions = {writer(0): 0, writer(1): 2**40, writer(2): PASSED}

    assert decode_cursor(encode_cursor(positions, HERE), HERE, positions) == positions


def test_a_position_among_very_many_writers_names_the_newest_and_the_older_ones_are_passed() -> None:
    positions = {writer(number): number for number in range(MAX_WRITERS + 3)}
    later = writer(MAX_WRITERS + 3)

    found = decode_cursor(encode_cursor(positions, HERE), HERE, [*positions, later])

    assert found == {name: PASSED if number < 3 else number for number, name in enumerate(positions)}
    assert len(encode_cursor(positions, HERE)) < MAX_CURSOR_LENGTH


def test_a_writer_that_a_short_position_does_not_name_is_new() -> None:
    assert decode_cursor(encode_cursor({writer(1): 5}, HERE), HERE, [writer(0), writer(1)]) == {writer(1): 5}


def test_a_position_in_another_journal_is_none_here_whatever_its_writers_are_called() -> None:
    elsewhere = encode_cursor({writer(1): 5}, "another")

    assert decode_cursor(elsewhere, HERE, [writer(1)]) is None
    assert decode_cursor(encode_cursor({}, "another"), HERE, []) is None
    assert decode_cursor(encode_cursor({}, HERE), HERE, []) == {}


def test_a_position_longer_than_any_is_refused() -> None:
    endless = encode_cursor({"x" * MAX_CURSOR_LENGTH: 1}, HERE)

    with pytest.raises(ValueError, match="is not a position of this stream: send the id of an event back unchanged"):
        decode_cursor(endless, HERE, [])
