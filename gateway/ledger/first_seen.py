"""What was ever called, by whom, and when first: a few rows beside millions, written in the calls' own transaction.

A name stays when retention has deleted its calls: a tool that nobody calls any more is an answer too.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

from gateway.calls import COLUMN_OF, ToolCall
from gateway.ledger.queries import Query, Scope

NamedDimension = Literal["server", "tool", "token"]
NAMED_DIMENSIONS: Final[tuple[NamedDimension, ...]] = get_args(NamedDimension)


def tools_ever_called(scope: Scope) -> Query:
    """Each server and tool that was ever called before the scope's end, by one of its tokens."""
    where, parameters = _seen(scope)
    return Query(f"select distinct server_slug, tool_name from seen where {where}", parameters)  # noqa: S608 - constants


def ever_called(scope: Scope, dimension: NamedDimension, values: Sequence[str]) -> Query:
    """Those of `values` that a call before the scope's end had, of one of its tokens."""
    where, parameters = _seen(scope)
    column = COLUMN_OF[dimension]
    return Query(
        f"select distinct {column} from seen where {where} and {column} = any($values)",  # noqa: S608 - constants
        {**parameters, "values": list(values)},
    )


def _seen(scope: Scope) -> Query:
    tokens = scope.filters.get("token", ())
    condition = " and token_id = any($tokens)" if tokens else ""
    parameters: dict[str, object] = {"workspace_id": scope.workspace_id, "to_ns": scope.to_ns}
    return Query(
        f"workspace_id = $workspace_id and first_ns < $to_ns{condition}",
        {**parameters, "tokens": list(tokens)} if tokens else parameters,
    )


def record_first_seen(calls: Iterable[ToolCall]) -> Query:
    """Write down the names of calls, as they are stored, where they are new or a call is older than all before it."""
    first: dict[tuple[str, str, str, str], int] = {}
    for call in calls:
        names = (call.workspace_id, call.token_id, call.server_slug, call.tool_name)
        first[names] = min(call.timestamp_ns, first.get(names, call.timestamp_ns))
    # In one order, or two writers would wait for each other.
    rows = sorted((*names, first_ns) for names, first_ns in first.items())
    workspaces, tokens, servers, tools, times = (list(column) for column in zip(*rows, strict=True))
    return Query(
        """
        insert into seen (workspace_id, token_id, server_slug, tool_name, first_ns)
        select * from (
            select unnest(cast($workspaces as text[])) as workspace_id, unnest(cast($tokens as text[])) as token_id,
                unnest(cast($servers as text[])) as server_slug, unnest(cast($tools as text[])) as tool_name,
                unnest(cast($times as bigint[])) as first_ns
        ) as called
        where not exists (
            select 1 from seen where seen.workspace_id = called.workspace_id and seen.token_id = called.token_id
                and seen.server_slug = called.server_slug and seen.tool_name = called.tool_name
                and seen.first_ns <= called.first_ns
        )
        on conflict (workspace_id, token_id, server_slug, tool_name)
            do update set first_ns = least(seen.first_ns, excluded.first_ns)
        """,
        {"workspaces": workspaces, "tokens": tokens, "servers": servers, "tools": tools, "times": times},
    )
