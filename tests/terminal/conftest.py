"""One observer for all tests that only look at it."""

from collections.abc import Iterator

import pytest

from tests.terminal.observer_process import FAILED, Observer, call

MESSAGE = 'no such repo: "acme/\x1b[31mx",\nask \u202eits owner'
"""With what would color a terminal, break a line, and turn the rest of it around."""


@pytest.fixture(scope="session")
def observer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observer]:
    """Ten calls: six of `github__create_issue`, three of `jira__search` that fail, a slow one of `github__index`."""
    calls = [
        *(call(i, duration_ms=30.0 + i) for i in range(6)),
        *(
            call(6 + i, server_slug="jira", tool_name="search", **(FAILED | {"error_message": MESSAGE}))
            for i in range(3)
        ),
        call(9, tool_name="index", duration_ms=4321.0, total_ms=4400.0),
    ]
    with Observer(tmp_path_factory.mktemp("observer")) as observer:
        yield observer.holding(calls)
