"""Which server a resource's URI belongs to. A URI is not renamed: it means something outside of MCP as well.

A URI that a server lists goes there, else one that matches a server's template. Of several servers the first one of
the configuration file wins.

Source: specification 2026-07-28, server/resources; RFC 6570.
"""

import contextlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from mcp.shared.uri_template import DEFAULT_MAX_URI_LENGTH, InvalidUriTemplate, UriTemplate

MAX_URI: Final = DEFAULT_MAX_URI_LENGTH


class Offered(NamedTuple):
    """The resources that one server lists: URIs, and templates of URIs."""

    slug: str
    uris: Iterable[str] = ()
    templates: Iterable[str] = ()


class ResourceRoutes:
    """Built from every listing; servers in the order of the file, only those that serve resources."""

    __slots__ = ("_by_uri", "_servers", "_templates")

    def __init__(self, servers: Iterable[Offered]) -> None:
        self._servers: list[str] = []
        self._by_uri: dict[str, list[str]] = {}
        self._templates: list[tuple[UriTemplate, str]] = []
        for offered in servers:
            self._servers.append(offered.slug)
            for uri in dict.fromkeys(offered.uris):
                self._by_uri.setdefault(uri, []).append(offered.slug)
            for template in offered.templates:
                with contextlib.suppress(
                    InvalidUriTemplate
                ):  # it is no template, or its variables cannot be told apart
                    self._templates.append((UriTemplate.parse(template), offered.slug))

    def candidates(self, uri: str) -> tuple[str, ...]:
        """The servers that a URI may belong to, the likeliest first.

        Those that list it; else those with a template for it; else all: a tool's result may link to a resource that
        no list names. To ask the next one is right after a server's "not found" alone.
        """
        listed = self._by_uri.get(uri)
        if listed is not None:
            return tuple(listed)
        return self._matching(uri) or tuple(self._servers)

    def route(self, uri: str) -> str | None:
        """The server of a URI; one that nobody lists belongs to the only server, if there is but one."""
        found = self.candidates(uri)
        if len(found) == 1 or uri in self._by_uri or self._matching(uri):
            return found[0]
        return None

    def _matching(self, uri: str) -> tuple[str, ...]:
        if len(uri) > MAX_URI:
            return ()
        return tuple(dict.fromkeys(slug for template, slug in self._templates if template.match(uri) is not None))
