"""How long to pause before the next attempt: doubled at each failure, up to a longest pause."""


class Backoff:
    """The pauses of one repeated attempt, in seconds; a success resets them."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._pause_s = 0.0

    def failed(self) -> float:
        """The pause after one more failure in a row."""
        self._pause_s = min(self._pause_s * 2 or self._first_s, self._longest_s)
        return self._pause_s

    def reset(self) -> None:
        """After a success: the next failure pauses for the first time again."""
        self._pause_s = 0.0
