"""The real routes over a ledger that holds given calls."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import jwt
from starlette.applications import Starlette

from gateway.analytics.authorization import Authorizer
from gateway.analytics.jwks import KeySet
from gateway.analytics.routes import AnalyticsRoutes
from gateway.calls import ToolCall
from gateway.config import Config, Jwt
from gateway.ledger import Ledger, open_ledger
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.ledger.queries import Query

PATH = "/api/community/mcp/workspaces/{}/analytics"
JWT = Jwt(secret="short")
NOW_NS = 1_795_443_000_123_456_789
"""2026-11-23, a Monday, 14:10 UTC."""


CONFIG = Config.model_validate(
    {
        "api": {"jwt": {"secret": JWT.secret}},
        "workspaces": {
            "engineering": {
                "plan": "enterprise",
                "servers": {"github": {"url": "http://127.0.0.1/"}, "jira": {"command": "jira-mcp"}},
                "tokens": [
                    {"id": "alice", "name": "Zoe's Cursor", "sha256": "a" * 64},
                    {"id": "bob", "name": "Bob", "sha256": "b" * 64},
                ],
            },
            "sales": {
                "servers": {"crm": {"url": "http://127.0.0.1/"}},
                "tokens": [{"id": "carol", "name": "Carol", "sha256": "c" * 64}],
            },
        },
    }
)
"""`engineering` has no limits; `sales` has the free plan."""

LEDGER_URL: str | None = None
"""Where the calls are put: None is DuckDB."""

SECRET = (JWT.secret or "").encode().ljust(64, b"\0")
"""As HMAC pads it; written out, because PyJWT warns of a short one."""


def bearer(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, str] | None = None, **claims: Any) -> str:
    """A JWT for `engineering`, good for ten minutes; every claim may be given."""
    defaults = {"workspaces": ["engineering"], "exp": time.time() + 600}
    return jwt.encode({**defaults, **claims}, key, algorithm, headers)


def bearer_of_all() -> str:
    return bearer(workspaces=["*"])


class Service:
    """Answers requests, with a token for every workspace unless another is given. A context manager."""

    def __init__(
        self,
        calls: Sequence[ToolCall] = (),
        *,
        now_ns: int = NOW_NS,
        config: Config = CONFIG,
        catalog: Callable[[str], Iterable[tuple[str, str]]] = lambda _: (),
        upstream_up: Callable[[str, str], bool | None] = lambda _workspace, _server: None,
        ledger_url: str | None = None,
        key_set: Callable[[str], KeySet] = KeySet,
        **options: Any,
    ) -> None:
        """`options` are further ones of `AnalyticsRoutes`."""
        url = ledger_url or LEDGER_URL
        self.now_ns = now_ns
        self.config = config
        self.ledger: Ledger = DuckLedger.open(Path(":memory:")) if url is None else open_ledger(url, Path())
        with self.ledger.transaction() as transaction:
            for table in ("calls", "deleted_usage", "seen"):
                transaction.execute(Query(f"delete from {table}", {}))  # noqa: S608 - constants
        self.add(calls)
        self.authorizer = Authorizer(lambda: self.config, key_set=key_set)
        self.options = {"catalog": catalog, "upstream_up": upstream_up, "clock": lambda: self.now_ns, **options}
        self.serve(self.ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()

    def serve(self, ledger: Any) -> None:
        """Answer out of this ledger from now on."""
        self.app = Starlette(routes=AnalyticsRoutes(ledger, self.authorizer, **self.options).routes())

    def add(self, calls: Sequence[ToolCall]) -> None:
        """Calls that arrive now."""
        with self.ledger.transaction() as transaction:
            transaction.insert(calls)

    async def send(
        self,
        path: str = "",
        parameters: Sequence[tuple[str, str]] | dict[str, str] = (),
        *,
        workspace: str = "engineering",
        bearer: str | None = None,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        prefix: str = PATH,
    ) -> httpx.Response:
        """The response to a request for `path` under the workspace's `prefix`."""
        token = bearer_of_all() if bearer is None else bearer
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://callscope") as client:
            return await client.request(
                method,
                prefix.format(workspace) + path,
                params=httpx.QueryParams(list(parameters.items() if isinstance(parameters, dict) else parameters)),
                headers={name.encode(): value.encode() for name, value in sent.items()},
            )

    def request(
        self, path: str = "", parameters: Sequence[tuple[str, str]] | dict[str, str] = (), **options: Any
    ) -> httpx.Response:
        """As `send`, for tests that are not asynchronous."""
        return asyncio.run(self.send(path, parameters, **options))

    def app_json(self, path: str) -> Any:
        """The JSON at a path of the application's, which needs no token."""

        async def fetch() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(self.app), base_url="http://callscope"
            ) as client:
                return await client.get(path)

        return asyncio.run(fetch()).json()

    def get(
        self,
        path: str = "",
        parameters: Sequence[tuple[str, str]] | dict[str, str] = (),
        *,
        workspace: str = "engineering",
        bearer: str | None = None,
    ) -> Any:
        """The JSON of an answer that must be 200."""
        response = self.request(path, parameters, workspace=workspace, bearer=bearer)
        assert response.status_code == 200, response.text
        return response.json()
