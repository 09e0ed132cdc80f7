"""The documentation names every dashboard, and no other."""

import re

from dashboards.links import TITLES
from tests.dashboards.reading import ROOT


def test_the_page_names_every_dashboard_and_no_other() -> None:
    page = (ROOT / "docs" / "dashboards.md").read_text()

    rows = re.findall(r"^\| (\w+) \| `(callscope-\w+)` \|", page, re.MULTILINE)
    assert {uid: f"Callscope / {name}" for name, uid in rows} == {str(uid): title for uid, title in TITLES.items()}
