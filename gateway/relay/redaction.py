"""The one redactor: what a failed call leaves in the journal has passed through it."""

import re
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "[redacted]"

_KEYED: Final = (
    r"(?i)([\"']?[\w-]*(?:authorization|api[-_]?key|secret|passw(?:or)?d|access[-_]?token|refresh[-_]?token"
    r"|client[-_]?secret|private[-_]?key)[\w-]*\\?[\"']?\s*[:=]\s*\\?[\"']?)(?:(?:bearer|basic|token)\s+)?[^\s\"'\\,;&}]+"
)
_SHAPED: Final = (
    r"mwt_[A-Za-z0-9_-]{16,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
    r"\b(?i:bearer|basic)\s+[A-Za-z0-9+/=_.~-]{8,}",
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[A-Z0-9]{16})\b",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
)
_CUT: Final = "… [cut]"


class Redactor:
    """Replaces tokens, keys, configured secrets and patterns, then caps the text.

    `secrets` are values that the configuration holds (an upstream's headers and environment), taken literally.
    """

    def __init__(self, patterns: Iterable[str] = (), secrets: Iterable[str] = (), *, max_bytes: int = 4096) -> None:
        literal = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)]
        self._whole = re.compile("|".join(f"(?:{part})" for part in (*literal, *_SHAPED)), re.DOTALL)
        self._keyed = re.compile(_KEYED)
        self._own = [re.compile(pattern) for pattern in patterns]
        self._max_bytes = max_bytes

    def text(self, value: str | bytes) -> str:
        """The text without secrets, at most `max_bytes` of UTF-8; what was cut off is marked."""
        scanned = self._max_bytes * 4
        text = value[:scanned].decode("utf-8", "replace") if isinstance(value, bytes) else value[:scanned]
        cut = len(value) > scanned
        text = self._keyed.sub(rf"\g<1>{REDACTED}", self._whole.sub(REDACTED, text))
        for pattern in self._own:
            text = pattern.sub(REDACTED, text)
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= self._max_bytes and not cut:
            return text
        return encoded[: self._max_bytes - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT
