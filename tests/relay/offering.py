"""Upstreams of both eras that offer prompts, resources, templates and completion, and say what they were asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.http1.raw import COMPLETE, TOOLS, Request, Steps, answered, whole
from tests.relay.rig import legacy, modern

ERAS = ("modern", "legacy")
ASKED = ("prompts/get", "resources/read", "completion/complete")


@dataclass(slots=True)
class Offering:
    """An upstream of one era; its capabilities are what it has, unless they are given."""

    era: str = "modern"
    prompts: Sequence[str] | None = None
    resources: Mapping[str, str] | None = None
    """The text of each, by its URI."""
    templates: Sequence[str] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    """Resources that no list has."""
    completions: Sequence[str] | None = None
    capabilities: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] = tuple(TOOLS)
    page: int = 100
    instead: Mapping[str, Steps] = field(default_factory=dict)
    """By method: what is done in the place of the answer."""

    def __call__(self, request: Request) -> Steps:
        method = request.message.get("method")
        if method in self.instead:
            return self.instead[method]
        if "id" not in request.message:
            return [whole(b"", 202)]
        return self._opened(request) or self._list(request) or self._one(request)

    def _opened(self, request: Request) -> Steps:
        match request.message["method"]:
            case "server/discover" if self.era == "modern":
                return self._result(request, supportedVersions=["2026-07-28"], capabilities=self.declared())
            case "server/discover":
                return [whole(b"", 400)]
            case "initialize":
                info = {"serverInfo": {"name": "old"}, "capabilities": self.declared()}
                return self._result(request, protocolVersion="2025-11-25", **info)
        return []

    def _list(self, request: Request) -> Steps:
        match request.message["method"]:
            case "tools/list":
                return self._result(request, tools=list(self.tools))
            case "prompts/list" if self.prompts is not None:
                return self._page(request, "prompts", [{"name": name, "title": name.upper()} for name in self.prompts])
            case "resources/list" if self.resources is not None:
                return self._page(request, "resources", [{"uri": uri, "name": uri} for uri in self.resources])
            case "resources/templates/list" if self.resources is not None:
                listed = [{"uriTemplate": template, "name": template} for template in self.templates]
                return self._page(request, "resourceTemplates", listed)
        return []

    def _one(self, request: Request) -> Steps:
        method, params = request.message["method"], request.message.get("params", {})
        match method:
            case "prompts/get" if params["name"] in (self.prompts or ()):
                return self._result(request, messages=[], description=params["name"])
            case "prompts/get":
                return self.error(request, -32602, "no such prompt")
            case "resources/read":
                return self._read(request, params["uri"])
            case "completion/complete" if self.completions is not None:
                return self._result(request, completion={"values": list(self.completions)})
        return self.error(request, -32601, f"no {method}")

    def declared(self) -> Mapping[str, Any]:
        if self.capabilities is not None:
            return self.capabilities
        has = {"prompts": self.prompts, "resources": self.resources, "completions": self.completions}
        return {"tools": {}, **{name: {} for name, what in has.items() if what is not None}}

    def error(self, request: Request, code: int, message: str, data: Any = None) -> Steps:
        error = {"code": code, "message": message, **({"data": data} if data is not None else {})}
        body = json.dumps({"jsonrpc": "2.0", "id": request.message["id"], "error": error}).encode()
        statuses = {-32602: 400, -32601: 404}
        return [whole(body, statuses.get(code, 200) if self.era == "modern" else 200)]

    def _read(self, request: Request, uri: str) -> Steps:
        found = {**(self.resources or {}), **self.hidden}
        if uri in found:
            return self._result(request, contents=[{"uri": uri, "text": found[uri]}])
        code = -32602 if self.era == "modern" else -32002
        return self.error(request, code, "no such resource", {"uri": uri})

    def _page(self, request: Request, member: str, items: Sequence[Any]) -> Steps:
        start = int(request.message.get("params", {}).get("cursor", 0))
        end = start + self.page
        more = {"nextCursor": str(end)} if end < len(items) else {}
        return self._result(request, **{member: list(items[start:end])}, **more)

    def _result(self, request: Request, **members: Any) -> Steps:
        return [answered(request, {**(COMPLETE if self.era == "modern" else {}), **members})]


def asking(era: str, method: str, params: Mapping[str, Any] | None = None, **meta: Any) -> tuple[dict[str, str], Any]:
    """A client's request, of one era, with the header that a modern one has for a URI."""
    if era == "legacy":
        return legacy(method, {**(params or {}), **({"_meta": meta} if meta else {})})
    headers, body = modern(method, params, **meta)
    if method == "resources/read":
        headers["mcp-name"] = body["params"]["uri"]
    return headers, body


def asked(requests: Sequence[Request], *methods: str) -> list[Request]:
    """Those that asked for this."""
    return [request for request in requests if request.message.get("method") in (methods or ASKED)]
