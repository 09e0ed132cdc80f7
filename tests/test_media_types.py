"""`Accept` as RFC 9110 reads it."""

import pytest

from gateway.media_types import accepts


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", True),
        ("*/*", True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/html, application/*;q=0.1", True),
        ("text/html,*/*;q=0.8", True),
        ("text/html", False),
        ("application/json;q=0", False),
        ("application/json;q=0, */*", False),
        ("*/*;q=0.0", False),
        ("application/json;q=much", True),
    ],
)
def test_the_most_specific_range_of_an_accept_header_decides(accept: str, *, expected: bool) -> None:
    assert accepts(accept, "application/json") is expected
