"""The names that were ever called, kept beside the calls."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.calls import ToolCall
from gateway.ledger import Ledger, open_ledger
from gateway.ledger.queries import Scope, ever_called, tools_ever_called
from gateway.ledger.retention import delete_batch
from tests.ledger.records import call


@pytest.fixture
def ledger(ledger_url: str | None, tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(ledger_url, tmp_path)
    yield opened
    opened.close()


def keep(ledger: Ledger, *calls: ToolCall) -> None:
    with ledger.transaction() as transaction:
        transaction.insert(calls)


def before(to_ns: int, token_id: str | None = None) -> Scope:
    filters: dict[Any, tuple[str, ...]] = {} if token_id is None else {"token": (token_id,)}
    return Scope(workspace_id="engineering", from_ns=0, to_ns=to_ns, filters=filters)


def tools(ledger: Ledger, scope: Scope) -> Sequence[tuple[str, str]]:
    with ledger.snapshot() as snapshot:
        return sorted(snapshot.rows(tools_ever_called(scope)))


def test_a_tool_was_called_from_its_oldest_call_on_in_whatever_order_they_arrive(ledger: Ledger) -> None:
    keep(ledger, call(timestamp_ns=50), call(timestamp_ns=40))
    assert tools(ledger, before(40)) == []
    assert tools(ledger, before(41)) == [("github", "create_issue")]

    keep(ledger, call(timestamp_ns=60))
    assert tools(ledger, before(40)) == []

    keep(ledger, call(timestamp_ns=30))
    assert tools(ledger, before(31)) == [("github", "create_issue")]


def test_tools_are_those_of_one_workspace_and_of_one_token_if_one_is_named(ledger: Ledger) -> None:
    keep(
        ledger,
        call(tool_name="search", token_id="alice"),
        call(tool_name="list", token_id="bob"),
        call(tool_name="list", token_id="bob", server_slug="jira"),
        call(tool_name="other", workspace_id="sales"),
    )
    assert tools(ledger, before(2**62)) == [("github", "list"), ("github", "search"), ("jira", "list")]
    assert tools(ledger, before(2**62, "alice")) == [("github", "search")]
    assert tools(ledger, before(2**62, "carol")) == []


def test_names_that_were_called_are_distinguished_from_others(ledger: Ledger) -> None:
    keep(ledger, call(timestamp_ns=5, server_slug="jira", token_id="bob"), call(timestamp_ns=9))
    with ledger.snapshot() as snapshot:
        asked = ["jira", "github", "crm"]
        assert snapshot.rows(ever_called(before(6), "server", asked)) == [("jira",)]
        assert sorted(snapshot.rows(ever_called(before(10), "server", asked))) == [("github",), ("jira",)]
        assert snapshot.rows(ever_called(before(10, "bob"), "server", asked)) == [("jira",)]
        assert snapshot.rows(ever_called(before(10), "token", ["carol", "bob"])) == [("bob",)]


def test_names_that_are_stored_alike_are_one(ledger: Ledger) -> None:
    keep(ledger, call(timestamp_ns=8, tool_name="a\0"), call(timestamp_ns=7, tool_name="a\ufffd"))
    assert tools(ledger, before(8)) == [("github", "a\ufffd")]


def test_a_transaction_that_fails_has_not_seen_its_names(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.transaction() as transaction:
            transaction.insert([call()])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert tools(ledger, before(2**62)) == []


def test_a_tool_whose_calls_retention_has_deleted_was_called_all_the_same(ledger: Ledger) -> None:
    keep(ledger, call(timestamp_ns=5))
    assert delete_batch(ledger, "engineering", 6) == 1
    assert tools(ledger, before(6)) == [("github", "create_issue")]
