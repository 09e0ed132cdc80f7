"""promtool, which evaluates PromQL over made-up series, without a server."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.backends import installed

VARIABLES = {"$job": "callscope", "$workspace": ".+", "$server": ".+", "$tool": ".+", "$member": ".+"}

Samples = Mapping[str, float]
"""Values by labels, as `{workspace="a"}`."""


def holds(
    folder: Path,
    series: Mapping[str, str],
    asked: Mapping[str, Samples],
    *,
    at_s: int,
    interval: str,
    rules: Sequence[Path] = (),
) -> None:
    """Ask queries at `at_s` seconds since the Unix epoch, when the series have had these values, `interval` apart.

    A series' values are in promtool's notation: `5x3`, `0+1x100`.
    """
    test = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": _with_all(query),
                "eval_time": f"{at_s}s",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in expected.items()],
            }
            for query, expected in asked.items()
        ],
    }
    path = folder / "test.yml"
    tests = {"rule_files": [str(rule) for rule in rules], "evaluation_interval": interval, "tests": [test]}
    path.write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [installed("promtool"), "test", "rules", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _with_all(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query
