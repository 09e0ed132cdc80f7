"""The configuration file while the observer runs: a valid change is applied at once, another is logged in full."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.config import Config, changes, load
from gateway.errors import ConfigError

logger = logging.getLogger(__name__)

FIXED: Final = ("listen", "observer", "data_dir", "ledger", "journal", "metrics", "otlp")
"""Sections that are read once, at the start."""


class ConfigReloader:
    """The configuration in use, and how often another was applied or rejected."""

    def __init__(self, config: Config, subscribers: Sequence[Callable[[Config], None]]) -> None:
        self.config = config
        self._at_start = config
        self.outcomes: Counter[str] = Counter({"success": 0, "error": 0})
        self.valid = True
        """Whether the file was valid when it was last read. If not, the last valid one stays in use."""
        self._subscribers = subscribers
        for subscriber in subscribers:
            subscriber(config)

    def current(self) -> Config:
        return self.config

    async def follow(self, path: Path) -> None:
        """Apply each change of the file that is valid, without end."""
        try:
            first: Config | ConfigError = load(path)  # it may have changed since the process read it
        except ConfigError as error:
            first = error
        if first != self.config:
            self._consider(first)
        async for change in changes(path):
            self._consider(change)

    def _consider(self, change: Config | ConfigError) -> None:
        self.valid = isinstance(change, Config)
        match change:
            case Config() if change != self.config:
                self._apply(change)
            case Config():
                logger.info("the configuration file is again the configuration in use")
            case ConfigError():
                self.outcomes["error"] += 1
                for mistake in change.mistakes:
                    logger.error("the changed configuration is refused: %s: %s", change.source, mistake)

    def _apply(self, config: Config) -> None:
        for section in FIXED:
            if getattr(config, section) != getattr(self._at_start, section):
                logger.warning("the change of '%s' needs a restart", section)
        self.config = config
        for subscriber in self._subscribers:
            subscriber(config)
        self.outcomes["success"] += 1
        logger.info("the changed configuration is in use")
