"""The configuration file while the observer runs: a valid change holds at once, of another every mistake is logged."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.config import Config, changes, load
from gateway.errors import ConfigError

logger = logging.getLogger(__name__)

FIXED: Final = ("listen", "observer", "data_dir", "ledger", "journal", "metrics", "otlp")
"""Sections that are read once, at the start."""


class ConfigReloader:
    """The configuration that holds now, and how often another was taken or refused."""

    def __init__(self, config: Config, subscribers: Sequence[Callable[[Config], None]]) -> None:
        self.config = config
        self._at_start = config
        self.outcomes: Counter[str] = Counter({"success": 0, "error": 0})
        self.valid = True
        """Whether the file, as it was last read, is a configuration; while it is none, the one before holds."""
        self._subscribers = subscribers
        for subscriber in subscribers:
            subscriber(config)

    def current(self) -> Config:
        """The configuration that holds now."""
        return self.config

    async def follow(self, path: Path) -> None:
        """Take over each change of the file that is valid; of another, log every mistake."""
        first = _load(path)  # it may have changed since the process read it
        if first != self.config:
            self._consider(first)
        async for change in changes(path):
            self._consider(change)

    def _consider(self, change: Config | ConfigError) -> None:
        self.valid = isinstance(change, Config)
        match change:
            case Config() if change != self.config:
                self._take(change)
            case Config():
                logger.info("the configuration is again the one that holds")
            case ConfigError():
                self.outcomes["error"] += 1
                for mistake in change.mistakes:
                    logger.error("the changed configuration is refused: %s: %s", change.source, mistake)

    def _take(self, config: Config) -> None:
        for section in _changed(self._at_start, config):
            logger.warning("the change of '%s' needs a restart", section)
        self.config = config
        for subscriber in self._subscribers:
            subscriber(config)
        self.outcomes["success"] += 1
        logger.info("the changed configuration holds")


def _load(path: Path) -> Config | ConfigError:
    try:
        return load(path)
    except ConfigError as error:
        return error


def _changed(old: Config, new: Config) -> list[str]:
    sections: Mapping[str, tuple[object, object]] = {name: (getattr(old, name), getattr(new, name)) for name in FIXED}
    return [name for name, (before, after) in sections.items() if before != after]
