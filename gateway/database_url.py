"""The URL of a PostgreSQL database: whether it is one, and how it is shown. Of its password nothing is ever said."""

import re
from typing import Final

EXAMPLE: Final = "postgresql://user:password@host:5432/database"

_SCHEMES: Final = ("postgresql", "postgres")
_HOST: Final = re.compile(r"(\[[^\[\]@]+\]|[^\[\]:@]*)(:[0-9]{0,5})?")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def checked(url: str) -> str:
    """The URL, if it is one; libpq's own messages would quote what it takes for the host or the port.

    Several hosts are separated by commas; without one, it is the socket of this machine (libpq, "Connection URIs").

    Raises:
        ValueError: it is none; the message quotes nothing of it.
    """
    scheme, separator, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    database = path.partition("?")[0]
    if scheme not in _SCHEMES or not separator or not database:
        raise ValueError(f"is no ledger: write {EXAMPLE}, or null for DuckDB")
    hosts = authority.rpartition("@")[2].split(",")
    if (
        authority.count("@") > 1
        or re.search("[@/]", database)
        or re.search(r"[#\s]", url)
        or _BROKEN_ESCAPE.search(url)
        or not all(_HOST.fullmatch(host) for host in hosts)
    ):
        raise ValueError(
            f"is no URL: it has the form {EXAMPLE}, and in a name or a password @ is written %40, / %2F, : %3A, # %23, "
            "% %25"
        )
    return url


def shown(url: str) -> str:
    """The URL without its user and password, and without parameters, which may hold them too."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
