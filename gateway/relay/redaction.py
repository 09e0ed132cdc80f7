"""Removes secrets from the text of failed calls before it is written to the journal.

The text comes from upstream servers, so no pattern may take longer than in proportion to the text's length: every
repetition is possessive, bounded, or starts only where the one before it cannot have been. None is nested in another.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from gateway.config import Config, HttpServer

REDACTED: Final = "[redacted]"

_WORD: Final = "[A-Za-z0-9_-]"
_SPACE: Final = r"(?:\s|\\[nrt])"
# Text may be JSON, in which a line break is a backslash and a letter.
_LINE_BREAK: Final = r"(?:(?:\\r)?\\n|\r?\n)(?:[ \t]|\\t){0,16}+"
_SECOND_LINE: Final = _LINE_BREAK + r"[A-Za-z0-9+/=_.~-]{8,}+"


def _token(prefix: str, characters: str, shortest: int) -> str:
    """A token that is known by its prefix, on one line or wrapped over two.

    The prefix stands first, and what may be before it is looked at behind it: so `re` searches for the prefix fast.
    """
    start = rf"(?:(?<!\w{prefix})|(?<=\\[nrt]{prefix}))"
    one_line = rf"{characters}{{{shortest},}}+"
    first_line = rf"{characters}{{4,}}+"
    return rf"{prefix}{start}(?:{one_line}(?:{_SECOND_LINE})?+|{first_line}{_SECOND_LINE})"


# Two or three parts, the first of which begins with the base64 of `{"`. At the end of the text, which may have been
# cut, also what may be the beginning of one.
_JWT: Final = (
    rf"(?<!{_WORD})(?={_WORD}*?eyJ{_WORD}{{8}}){_WORD}++"
    rf"(?:\.{_WORD}++\.{_WORD}*+(?:{_SECOND_LINE})?+|(?:\.{_WORD}*+)?{_SECOND_LINE}|(?:\.{_WORD}*+)?\Z)"
)
_SCHEME_AND_TOKEN: Final = (
    rf"(?i)(?-i:(?=[bB]))(?:(?<!\w)|(?<=\\[nrt]))(?:bearer|basic){_SPACE}{{1,16}}+"
    rf"[a-z0-9+/=_.~-]{{8,}}+(?:{_SECOND_LINE})?+"
)
_PRIVATE_KEY: Final = "[A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
_TOKENS: Final = (
    _token("mwt_", _WORD, 16),  # Callscope's own
    _JWT,
    _SCHEME_AND_TOKEN,
    _token("gh[pousr]_", "[A-Za-z0-9]", 20),
    _token("github_pat_", r"\w", 20),
    _token("sk-", _WORD, 16),  # OpenAI and Anthropic
    _token("xox[abeprs]-", "[A-Za-z0-9-]", 10),  # Slack
    _token("xapp-", "[A-Za-z0-9-]", 10),
    r"(?<=hooks\.slack\.com/services/)[A-Za-z0-9/]++",
    r"A[KS]IA(?:(?<!\w[A-Z]{4})|(?<=\\[nrt][A-Z]{4}))[A-Z0-9]{16}",  # AWS
    rf"-----BEGIN {_PRIVATE_KEY}.*?(?:-----END {_PRIVATE_KEY}|\Z)",
)
# The first letters stand apart in their own case: so `re` tries the rest at few places, and is six times as fast.
_KEY: Final = (
    r"(?-i:(?=[abiprstuABIPRSTU]))(?:"
    r"(?-i:[aA])(?:uthorization|pi[-_]?key|pi[-_]?token|ccess[-_]?key|ccess[-_]?token|uth[-_]?token)"
    r"|(?-i:[pP])(?:rivate[-_]?key|assw(?:or)?d|assphrase|wd)"
    r"|(?-i:[sS])(?:ecret|ignature(?==)|ession[-_]?token)"
    r"|(?-i:[bBiIrRuU])(?:earer|ot|d|efresh|ser)[-_]?token"
    r"|(?-i:[tT])oken(?:(?<=[\"']token)(?=\\*[\"'])|(?<![a-z0-9]token)(?==)))"
)
_KEY_AND_VALUE: Final = (
    rf"(?is)({_KEY}[A-Za-z0-9_-]{{0,64}}+\\*+[\"']?\s{{0,16}}+[:=]{_SPACE}{{0,16}}+)"
    r"(?:(\\*[\"'])(?:(?!(?<!\\)\2).)*+"  # up to a quote that is escaped just as often as the first
    rf"|(?:(?:apikey|basic|bearer|digest|key|negotiate|token){_SPACE}{{1,16}}+)?[^\s\"'\\,;&}}]++)"
)
_COOKIE: Final = r"(?i)((?-i:(?=[cCsS]))(?:set-)?cookie\\*+[\"']?\s{0,16}+[:=]\s{0,16}+\\*+[\"']?)[^\r\n\"'\\]++"
_URL_CREDENTIALS: Final = r"(://[^\s/?#@:\"'\\]{0,128}+:)[^\s/?#@\"'\\]{1,256}+(?=@)"
_CUT: Final = "… [cut]"
_SHORTEST_SECRET: Final = 8
_SHORTEST_PATH_SEGMENT: Final = 20
"""A longer one in a URL's path may be a key."""
_TAIL: Final = 256
"""Characters that are dropped where a text was cut: a secret that begins there may lack the part it is known by."""


class Redactor:
    """Replaces secrets, then limits the text's length.

    `patterns` are regular expressions of the configuration. `secrets` are values that it holds (see `secrets_of`);
    they are found as they are, and as JSON and URLs write them.
    """

    def __init__(self, patterns: Iterable[str] = (), secrets: Iterable[str] = (), *, max_bytes: int = 4096) -> None:
        self._secrets = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
        self.substitutions = [
            *((re.compile(pattern, re.DOTALL), REDACTED) for pattern in _TOKENS),
            (re.compile(_KEY_AND_VALUE), rf"\g<1>\g<2>{REDACTED}"),
            (re.compile(_URL_CREDENTIALS), rf"\g<1>{REDACTED}"),
            (re.compile(_COOKIE), rf"\g<1>{REDACTED}"),
            *((re.compile(pattern), REDACTED) for pattern in patterns),
        ]
        self._max_bytes = max_bytes
        self._tail = max([_TAIL, *map(len, self._secrets)])

    def text(self, value: str | bytes) -> str:
        """The text without secrets and U+0000, at most `max_bytes` of UTF-8. A text that was cut says so at its end."""
        scanned = self._max_bytes * 4
        text = without_nul(value[:scanned].decode("utf-8", "replace") if isinstance(value, bytes) else value[:scanned])
        text = self._without_known(text)
        for pattern, replacement in self.substitutions:
            text = pattern.sub(replacement, text)
        cut = len(value) > scanned
        if cut:
            text = text[: -self._tail]
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= self._max_bytes and not cut:
            return text
        return encoded[: self._max_bytes - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT

    def _without_known(self, text: str) -> str:
        """The text without the secrets of the configuration, also where one is wrapped over two lines."""
        unwrapped = re.sub(_LINE_BREAK, "", text)
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
            if secret in unwrapped:
                text = re.sub(rf"(?:{_LINE_BREAK})?+".join(map(re.escape, secret)), REDACTED, text)
        return text


def without_nul(text: str) -> str:
    """The text as every sink can store it: PostgreSQL has no U+0000."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def secrets_of(config: Config) -> set[str]:
    """The values in the configuration that may be secret: headers, environments, and keys in URLs."""
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
    yield from (segment for segment in url.path.split("/") if len(segment) >= _SHORTEST_PATH_SEGMENT)


def _forms(secret: str) -> set[str]:
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
    }
