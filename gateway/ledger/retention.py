"""Deletes calls that are older than a plan keeps them, and keeps count of what of them had used the plan up.

The laws: one batch is one short transaction, so that nobody waits long and a kill leaves nothing half done. A call is
in `calls` or counted in `deleted_usage`, never both and never neither: the rows that a statement says it deleted are
what is counted, whoever else deletes at the same time.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from gateway.ledger.driver import Ledger
from gateway.ledger.queries import REFUSED_BY_LIMITS, Query
from gateway.months import day_of

BATCH: Final = 5_000
"""Rows that one transaction deletes, or a few more if they have the same timestamp."""
_CLAIM: Final = "retention"
"""Not a journal's id: replicas that share a ledger delete one after the other."""


def delete_batch(ledger: Ledger, workspace_id: str, before_ns: int, *, most: int = BATCH) -> int:
    """Delete the oldest calls of a workspace that are older than `before_ns`. How many: 0 once there are none.

    Raises:
        LedgerUnavailableError: nothing was deleted, or all of it and the count is lost.
    """
    with ledger.transaction() as transaction:
        transaction.claim(_CLAIM)
        reached = transaction.rows(_nth_oldest(workspace_id, before_ns, most))
        end_ns = reached[0][0] + 1 if reached else before_ns
        deleted = transaction.rows(
            Query(
                """
                delete from calls where workspace_id = $workspace_id and timestamp_ns < $end_ns
                returning timestamp_ns, token_id, error_type
                """,
                {"workspace_id": workspace_id, "end_ns": end_ns},
            )
        )
        used = Counter(
            (day_of(timestamp_ns), token_id)
            for timestamp_ns, token_id, error_type in deleted
            if error_type not in REFUSED_BY_LIMITS
        )
        if used:
            transaction.execute(_keep_count(workspace_id, used))
    return len(deleted)


def delete_usage_before(ledger: Ledger, before_ns: int) -> None:
    """Forget what was counted of days before `before_ns`: no month that is asked for has them.

    Raises:
        LedgerUnavailableError: it may have happened all the same.
    """
    with ledger.transaction() as transaction:
        transaction.claim(_CLAIM)
        transaction.execute(Query("delete from deleted_usage where day_ns < $before_ns", {"before_ns": before_ns}))


def _nth_oldest(workspace_id: str, before_ns: int, n: int) -> Query:
    return Query(
        """
        select timestamp_ns from calls where workspace_id = $workspace_id and timestamp_ns < $before_ns
        order by timestamp_ns limit 1 offset $skipped
        """,
        {"workspace_id": workspace_id, "before_ns": before_ns, "skipped": n - 1},
    )


def _keep_count(workspace_id: str, used: Mapping[tuple[int, str], int]) -> Query:
    return Query(
        """
        insert into deleted_usage (workspace_id, day_ns, token_id, calls)
        select $workspace_id, unnest(cast($days as bigint[])), unnest(cast($tokens as text[])),
            unnest(cast($calls as bigint[]))
        on conflict (workspace_id, day_ns, token_id) do update set calls = deleted_usage.calls + excluded.calls
        """,
        {
            "workspace_id": workspace_id,
            "days": [day_ns for day_ns, _ in used],
            "tokens": [token_id for _, token_id in used],
            "calls": list(used.values()),
        },
    )
