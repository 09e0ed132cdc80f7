"""Deletes calls that are older than a plan retains them, and keeps the count of those that used the plan up.

The laws: one batch is one short transaction, so that nobody waits long and a kill leaves nothing half done. A call is
either in `calls` or counted in `deleted_usage`: what is counted are the rows that the statement says it deleted, even
if another replica deletes at the same time.
"""

from collections import Counter
from typing import Final

from gateway.ledger.driver import Ledger
from gateway.ledger.queries import REFUSED_BY_LIMITS, Query
from gateway.months import day_of

BATCH: Final = 5_000
"""Rows that one transaction deletes, or a few more if they have the same timestamp."""
_CLAIM: Final = "retention"
"""Not a journal's id: replicas that share a ledger delete one after the other."""
_NTH_OLDEST: Final = """
    select timestamp_ns from calls where workspace_id = $workspace_id and timestamp_ns < $before_ns
    order by timestamp_ns limit 1 offset $offset
    """
_DELETE: Final = """
    delete from calls where workspace_id = $workspace_id and timestamp_ns < $end_ns
    returning timestamp_ns, token_id, error_type
    """
_KEEP_COUNT: Final = """
    insert into deleted_usage (workspace_id, day_ns, token_id, calls)
    select $workspace_id, unnest(cast($days as bigint[])), unnest(cast($tokens as text[])),
        unnest(cast($calls as bigint[]))
    on conflict (workspace_id, day_ns, token_id) do update set calls = deleted_usage.calls + excluded.calls
    """


def delete_batch(ledger: Ledger, workspace_id: str, before_ns: int, *, most: int = BATCH) -> int:
    """Delete the oldest calls of a workspace that are older than `before_ns`. How many: 0 once there are none.

    Raises:
        LedgerUnavailableError: nothing was deleted, or all of it and the count is lost.
    """
    with ledger.transaction() as transaction:
        transaction.claim(_CLAIM)
        workspace: dict[str, object] = {"workspace_id": workspace_id}
        reached = transaction.rows(Query(_NTH_OLDEST, {**workspace, "before_ns": before_ns, "offset": most - 1}))
        end_ns = reached[0][0] + 1 if reached else before_ns
        deleted = transaction.rows(Query(_DELETE, {**workspace, "end_ns": end_ns}))
        used = Counter(
            (day_of(timestamp_ns), token_id)
            for timestamp_ns, token_id, error_type in deleted
            if error_type not in REFUSED_BY_LIMITS
        )
        if used:
            days, tokens = zip(*used, strict=True)
            counts = {"days": list(days), "tokens": list(tokens), "calls": list(used.values())}
            transaction.execute(Query(_KEEP_COUNT, {**workspace, **counts}))
    return len(deleted)


def delete_usage_before(ledger: Ledger, before_ns: int) -> None:
    """Delete the counts of days before `before_ns`: no query covers their months any more.

    Raises:
        LedgerUnavailableError: it may have happened all the same.
    """
    with ledger.transaction() as transaction:
        transaction.claim(_CLAIM)
        transaction.execute(Query("delete from deleted_usage where day_ns < $before_ns", {"before_ns": before_ns}))
