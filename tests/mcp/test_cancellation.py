"""`notifications/cancelled`."""

import json

import pytest
from mcp_types.methods import validate_client_notification
from msgspec import Raw

from gateway.mcp import cancellation
from gateway.mcp.cancellation import Cancelled


@pytest.mark.parametrize(
    ("params", "cancelled"),
    [
        pytest.param({"requestId": b"7"}, Cancelled(7), id="Cancel integer"),
        pytest.param({"requestId": b'"7"'}, Cancelled("7"), id="Cancel string"),
        pytest.param({"requestId": b"7", "reason": b'"late"'}, Cancelled(7, "late"), id="Cancel reason"),
        pytest.param({"requestId": b"7", "reason": b"7"}, Cancelled(7), id="Cancel a reason that is none"),
        pytest.param({}, None, id="Cancel nothing"),
        pytest.param({"requestId": b"null"}, None, id="Cancel null"),
        pytest.param({"requestId": b"1.5"}, None, id="Cancel no id"),
        pytest.param({"requestId": b'"\xff"'}, None, id="Cancel no UTF-8"),
    ],
)
def test_a_notification_says_which_request_is_not_waited_for(
    params: dict[str, bytes], cancelled: Cancelled | None
) -> None:
    assert cancellation.read({name: Raw(value) for name, value in params.items()}) == cancelled


@pytest.mark.parametrize(("request_id", "reason"), [(7, None), ("7", "the client left")])
def test_an_upstream_is_told_by_the_id_that_it_was_asked_under(request_id: int | str, reason: str | None) -> None:
    sent = json.loads(cancellation.notification(request_id, reason))
    params = {"requestId": request_id} if reason is None else {"requestId": request_id, "reason": reason}
    assert sent == {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
    for version in ("2025-03-26", "2025-11-25", "2026-07-28"):
        validate_client_notification(sent["method"], version, sent["params"])
