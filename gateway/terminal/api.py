"""The observer's API as commands use it: an answer, a stream, or one sentence for a person."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NoReturn, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from gateway.analytics.models import ErrorBody
from gateway.errors import CallscopeError
from gateway.terminal.formatting import one_line
from gateway.terminal.observer_connection import TTL_S, ObserverConnection

Answer = TypeVar("Answer")
Parameters = Sequence[tuple[str, str]]
"""A query's names and values, in order; a name may come again."""

ANSWER_S: Final = 30.0
"""Seconds that an answer may take: over a year of calls, on a busy machine."""
CONNECT_S: Final = 10.0
MOST_NAMES: Final = 20
"""Of the values that a parameter may have: more are no help in a line."""


def read(data: bytes, answer: type[Answer]) -> Answer:
    """Decode an answer of the API.

    Raises:
        CallscopeError: the data is not that answer.
    """
    try:
        return msgspec.json.decode(data, type=answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CallscopeError(f"this is none of the answers of an observer: {error}") from error


class UnansweredError(CallscopeError):
    """There is no answer now; the same request may succeed later."""

    def __init__(self, message: str, reason: str, retry_after_s: float = 0.0) -> None:
        self.reason = reason
        """The message's kernel, a few words."""
        self.retry_after_s = retry_after_s
        super().__init__(message)


class ApiClient:
    """The paths below a workspace's; a context manager, which closes the connections."""

    def __init__(self, connection: ObserverConnection, *, answer_s: float = ANSWER_S) -> None:
        """With the seconds for which an answer may say nothing before there is none."""
        self._answer_s = answer_s
        self._at = connection
        self._http = httpx.Client(trust_env=not connection.local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, workspace: str, path: str, answer: type[Answer], parameters: Parameters = ()) -> Answer:
        """The answer of a path below a workspace's.

        Raises:
            UnansweredError: there is none now.
            CallscopeError: the request is refused, or what answers is no observer.
        """
        with self.stream(workspace, path, parameters) as response:
            body = response.read()
        return read(body, answer)

    @contextlib.contextmanager
    def stream(
        self,
        workspace: str,
        path: str,
        parameters: Parameters = (),
        headers: Mapping[str, str] | None = None,
        *,
        silence_s: float | None = None,
        ttl_s: float = TTL_S,
    ) -> Iterator[httpx.Response]:
        """A response whose body is still to be read; what breaks meanwhile is an `UnansweredError`.

        A bearer that is made for it is good for `ttl_s` seconds.

        Raises:
            UnansweredError: there is no answer now, or nothing more of it came for `silence_s` seconds,
                which are those of an answer by default.
            CallscopeError: the request is refused.
        """
        url = f"{self._at.url}/api/community/mcp/workspaces/{quote(workspace, safe='')}{path}"
        authorization = {"Authorization": f"Bearer {self._at.bearer(workspace, ttl_s)}"}
        timeout = httpx.Timeout(self._answer_s if silence_s is None else silence_s, connect=CONNECT_S)
        request = self._http.build_request(
            "GET", url, params=list(parameters), headers={**authorization, **(headers or {})}, timeout=timeout
        )
        with self._named(), contextlib.closing(self._http.send(request, stream=True)) as response:
            if response.status_code != HTTPStatus.OK:
                response.read()
                self._refuse(response)
            yield response

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Say of httpx's errors what they mean."""
        try:
            yield
        except httpx.ConnectError as error:
            reason = str(error).partition("] ")[2] or str(error)
            raise UnansweredError(
                f"{self._at.url}: the observer cannot be reached: {reason}: does `callscope serve` run, and is this "
                f"its observer's address ({self._at.address_of})?",
                reason,
            ) from error
        except httpx.TimeoutException as error:
            raise UnansweredError(f"{self._at.url}: the observer does not answer in time", "no answer") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise UnansweredError(f"{self._at.url}: the connection broke: {reason}", reason) from error

    def _refuse(self, response: httpx.Response) -> NoReturn:
        status, url = response.status_code, self._at.url
        try:
            refusal = read(response.content, ErrorBody)
        except CallscopeError:
            raise self._stranger(status) from None
        said = one_line(refusal.error)
        match status:
            case HTTPStatus.BAD_REQUEST if refusal.parameter:
                raise CallscopeError(_mistake(refusal.parameter, said, refusal.allowed or []))
            case HTTPStatus.UNAUTHORIZED:
                raise CallscopeError(f"{url}: {said}: {self._at.advice}")
            case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise UnansweredError(f"{url}: {said}", said, _retry_after_s(response))
            case _:
                raise CallscopeError(f"{url}: {said}")

    def _stranger(self, status: int) -> CallscopeError:
        """Whoever does not say why is a proxy whose observer is away, or something else altogether."""
        said = f"{self._at.url}: answers {status}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return UnansweredError(f"{said} and does not say why", f"status {status}")
        return CallscopeError(
            f"{said}, and not as an observer does: is it the observer's address, and not the relay's?"
        )


def _mistake(parameter: str, said: str, allowed: Sequence[str]) -> str:
    """The API's words, of the option of the same name."""
    problem = said.removeprefix(f"{parameter}: ")
    names = [one_line(name) for name in allowed[:MOST_NAMES]]
    more = [f"and {len(allowed) - MOST_NAMES} more"] if len(allowed) > MOST_NAMES else []
    return f"--{parameter.replace('_', '-')}: {problem}" + (
        f" (there is {', '.join([*names, *more])})" if names else ""
    )


def _retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
