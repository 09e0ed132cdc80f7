"""What a configuration that changes while the observer runs does to it, and what is said of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config import Config, load
from gateway.observer.config_reload import ConfigReloader

RESTART = "the change of 'listen' needs a restart"
BEFORE = "listen: 127.0.0.1:1"


def write(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def remove(path: Path) -> None:
    """The file goes; another that comes makes the watch look."""
    path.unlink(missing_ok=True)
    path.with_name("another").touch()


@asynccontextmanager
async def following(path: Path, subscriber: Callable[[Config], None]) -> AsyncIterator[ConfigReloader]:
    """Changes of the file are taken over; they are seen from the start, whenever the watch begins."""
    write(path, BEFORE)
    reloader = ConfigReloader(load(path), [subscriber])
    task = asyncio.ensure_future(reloader.follow(path))
    try:
        async with asyncio.timeout(60):
            yield reloader
    finally:
        task.cancel()


async def until(condition: Callable[[], object], again: Callable[[], object] = lambda: None) -> None:
    """Poll; `again` makes the change anew, for the watch may not have begun when it was made first."""
    for turn in range(1500):
        if condition():
            return
        if turn % 50 == 0:
            again()
        await asyncio.sleep(0.02)
    raise TimeoutError("the condition did not come true")


async def test_a_file_that_vanishes_is_logged_and_counted_and_applies_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, taken = tmp_path / "callscope.yaml", list[Config]()
    async with following(path, taken.append) as it:
        await until(lambda: it.outcomes["error"], lambda: remove(path))
        assert "is refused" in caplog.text
        assert f"{path}: (top level): cannot be read: No such file or directory" in caplog.text
        assert it.current() == taken[0]
        assert not it.valid

        write(path, "workspaces: {engineering: {}}")
        await until(lambda: it.outcomes["success"])

    assert "engineering" in it.current().workspaces
    assert it.current() == taken[-1]
    assert it.outcomes == {"error": 1, "success": 1}
    assert it.valid


async def test_a_change_that_is_taken_back_needs_no_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "callscope.yaml"
    async with following(path, lambda _: None) as it:
        await until(lambda: it.outcomes["success"] == 1, lambda: write(path, "listen: 127.0.0.1:2"))
        assert caplog.messages.count(RESTART) == 1

        write(path, BEFORE)
        await until(lambda: it.outcomes["success"] == 2)
        assert caplog.messages.count(RESTART) == 1


async def test_a_change_that_needs_a_restart_is_logged_until_it_is_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "callscope.yaml"
    async with following(path, lambda _: None) as it:
        await until(lambda: it.outcomes["success"] == 1, lambda: write(path, "listen: 127.0.0.1:2"))
        write(path, "listen: 127.0.0.1:2\nworkspaces: {engineering: {}}")
        await until(lambda: it.outcomes["success"] == 2)

    assert caplog.messages.count(RESTART) == 2


async def test_a_file_that_is_back_as_it_was_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "callscope.yaml"
    caplog.set_level(logging.INFO)
    async with following(path, lambda _: None) as it:
        caplog.clear()
        await until(lambda: it.outcomes["error"], lambda: remove(path))
        write(path, BEFORE)
        await until(lambda: "the configuration file is again the configuration in use" in caplog.messages)

    assert it.valid
    assert it.outcomes == {"error": 1, "success": 0}
