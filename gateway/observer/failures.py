"""Whose failure a call's was, as far as spans and metrics tell the gateway's from the upstream's."""

from typing import Final

from gateway.calls import ErrorType

GATEWAYS_OWN: Final = frozenset(
    {ErrorType.UNKNOWN_TOOL, ErrorType.RATE_LIMITED, ErrorType.QUOTA_EXCEEDED, ErrorType.GATEWAY_ERROR}
)
"""Failures of which the upstream knows nothing: the CLIENT span and the client's operation are no error then."""
