"""The URL of a PostgreSQL database: how it is checked, and how it is shown without its password."""

import re
from typing import Final

EXAMPLE: Final = "postgresql://user:password@host:5432/database"

_SCHEMES: Final = ("postgresql", "postgres")
_HOST: Final = re.compile(r"(\[[^\[\]@]+\]|[^\[\]:@]*)(:[0-9]{0,5})?")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def checked(url: str) -> str:
    """The URL, if it is valid (libpq, "Connection URIs"): hosts are separated by commas, and none means a local socket.

    Raises:
        ValueError: it is not. The message quotes no part of it: libpq's own would quote parts of the password.
    """
    scheme, separator, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    database = path.partition("?")[0]
    if scheme not in _SCHEMES or not separator or not database:
        raise ValueError(f"is not a PostgreSQL URL: write {EXAMPLE}, or null for DuckDB")
    hosts = authority.rpartition("@")[2].split(",")
    if (
        authority.count("@") > 1
        or re.search("[@/]", database)
        or re.search(r"[#\s]", url)
        or _BROKEN_ESCAPE.search(url)
        or not all(_HOST.fullmatch(host) for host in hosts)
    ):
        raise ValueError(
            f"is not a valid URL: write {EXAMPLE}; in names and passwords write @ as %40, / as %2F, : as %3A, # as %23 "
            "and % as %25"
        )
    return url


def shown(url: str) -> str:
    """The URL without its user and password, and without parameters, which may hold them too."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
