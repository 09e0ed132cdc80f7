"""The one redactor: what a failed call leaves in the journal has passed through it.

Its texts come from upstreams, so no pattern here may take more than a time that grows with the text's length: every
repetition is possessive, bounded, or begins where nothing before it could have.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from gateway.config import Config, HttpServer

REDACTED: Final = "[redacted]"

_KEY: Final = (
    r"(?:authorization|api[-_]?key|access[-_]?key|private[-_]?key|secret|passw(?:or)?d|passphrase|pwd"
    r"|(?:access|api|auth|bearer|bot|id|refresh|session|user)[-_]?token|(?<=[\"'])token(?=\\*[\"'])"
    r"|(?<![A-Za-z0-9])token(?==))"
)
_KEYED: Final = (
    rf"(?is)({_KEY}[A-Za-z0-9_-]{{0,64}}+\\*+[\"']?\s{{0,16}}+[:=]\s{{0,16}}+)"
    r"(?:(\\*[\"'])(?:(?!(?<!\\)\2).)*+"  # up to a quote that is escaped just as often as the first
    r"|(?:(?:apikey|basic|bearer|digest|key|negotiate|token)\s{1,16}+)?[^\s\"'\\,;&}]++)"
)
_COOKIE: Final = r"(?i)((?:set-)?cookie\\*+[\"']?\s{0,16}+[:=]\s{0,16}+\\*+[\"']?)[^\r\n\"'\\]++"
_WORD: Final = "[A-Za-z0-9_-]"
_SHAPED: Final = (
    r"mwt_[A-Za-z0-9_-]{16,}+",
    # a JWT; at the end of the text also what may be the first part of one
    rf"(?<!{_WORD})(?={_WORD}*?eyJ{_WORD}{{8}}){_WORD}++(?:\.{_WORD}++\.{_WORD}*+|(?:\.{_WORD}*+)?\Z)",
    r"\b(?i:bearer|basic)\s{1,16}+[A-Za-z0-9+/=_.~-]{8,}+",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}+",
    r"\bgithub_pat_\w{20,}+",
    r"\bsk-[A-Za-z0-9_-]{16,}+",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}+",
    r"\bAKIA[A-Z0-9]{16}",
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)",
)
_CUT: Final = "… [cut]"
_SHORTEST_SECRET: Final = 8
_SHORTEST_SEGMENT: Final = 20
"""Of a URL's path that is taken for a key."""
_TAIL: Final = 256
"""Characters at the end of a text that was cut: a secret that begins there may lack the rest it is known by."""


class Redactor:
    """Replaces tokens, keys, configured secrets and patterns, then caps the text.

    `secrets` are values that the configuration holds (see `secrets_of`), found as they are and as JSON and URLs
    write them.
    """

    def __init__(self, patterns: Iterable[str] = (), secrets: Iterable[str] = (), *, max_bytes: int = 4096) -> None:
        literal = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
        self._whole = re.compile("|".join(f"(?:{part})" for part in (*map(re.escape, literal), *_SHAPED)), re.DOTALL)
        self._keyed = re.compile(_KEYED)
        self._cookie = re.compile(_COOKIE)
        self._own = [re.compile(pattern) for pattern in patterns]
        self._max_bytes = max_bytes
        self._tail = max([_TAIL, *map(len, literal)])

    def text(self, value: str | bytes) -> str:
        """The text without secrets and U+0000, at most `max_bytes` of UTF-8; what was cut off is marked."""
        scanned = self._max_bytes * 4
        text = value[:scanned].decode("utf-8", "replace") if isinstance(value, bytes) else value[:scanned]
        text = without_nul(text)
        cut = len(value) > scanned
        text = self._keyed.sub(rf"\g<1>\g<2>{REDACTED}", self._whole.sub(REDACTED, text))
        text = self._cookie.sub(rf"\g<1>{REDACTED}", text)
        for pattern in self._own:
            text = pattern.sub(REDACTED, text)
        if cut:
            text = text[: -self._tail]
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= self._max_bytes and not cut:
            return text
        return encoded[: self._max_bytes - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


def without_nul(text: str) -> str:
    """The text as every signal can have it: a ledger in PostgreSQL has no U+0000."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def secrets_of(config: Config) -> set[str]:
    """What the configuration holds that no signal may show: credentials, environments, and keys inside URLs."""
    found: set[str] = set()
    for workspace in config.workspaces.values():
        for server in workspace.servers.values():
            if isinstance(server, HttpServer):
                found.update(_in_url(server.url))
                for value in server.headers.values():
                    scheme, _, credentials = value.partition(" ")
                    found.update((value, credentials.strip()) if scheme.isalpha() else (value,))
            else:
                found.update(server.env.values())
    return {value for value in found if len(value) >= _SHORTEST_SECRET}


def _in_url(text: str) -> Iterator[str]:
    url = urlsplit(text)
    yield url.password or ""
    yield from (value for _, value in parse_qsl(url.query))
    yield from (segment for segment in url.path.split("/") if len(segment) >= _SHORTEST_SEGMENT)


def _forms(secret: str) -> set[str]:
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
    }
