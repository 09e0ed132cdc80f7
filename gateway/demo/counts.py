"""What is counted and compared: the outcomes of calls."""

from collections import Counter
from typing import NamedTuple


class CountKey(NamedTuple):
    """What became of a call; `error_type` is None for a success."""

    workspace: str
    token_id: str
    error_type: str | None


Counts = Counter[CountKey]
