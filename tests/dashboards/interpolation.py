"""A dashboard's query with its variables filled in, as Grafana does it."""

import re
from typing import Final

from tests.dashboards.generated_boards import named_in

EVERYTHING: Final = ".+"
FREE: Final = {"search": "", "error_type": ".*"}
"""What All, or nothing typed in, is where it is not `EVERYTHING`."""
DURATIONS: Final = {"__auto": "1h", "__rate_interval": "1m", "__range_s": "3600", "__range": "1h"}


def interpolated(text: str, **values: str) -> str:
    """The query; a variable without a value is on All, and the range is the last hour."""
    known = {**dict.fromkeys(named_in(text) - {"1"}, EVERYTHING), **FREE, **DURATIONS, **values}
    for name, value in known.items():
        text = re.sub(rf"\$\{{?{name}\b\}}?", value, text)
    return text
