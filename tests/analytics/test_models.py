"""The models of the API's answers, as what imports them uses them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec

from gateway.analytics.models import CallDetail, CallSummary, ErrorBody, Overview
from tests.ledger.records import call

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_commands_import_them_without_a_database_a_server_or_a_client() -> None:
    script = "import sys, gateway.analytics.models; print({'duckdb', 'starlette', 'httpx', 'jwt'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


def test_the_examples_of_the_documentation_are_answers() -> None:
    overview, error = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    for text, model in ((overview, Overview), (error, ErrorBody)):
        assert json.loads(msgspec.json.encode(msgspec.json.decode(text, type=model))) == json.loads(text)


def test_a_detail_begins_with_the_members_of_a_summary_in_their_order() -> None:
    record = call(client_name="cursor", client_version=None)
    summary, detail = (json.loads(msgspec.json.encode(model.of(record))) for model in (CallSummary, CallDetail))
    assert list(detail)[: len(summary)] == list(summary)
    assert detail | summary == detail
    assert summary["client"] == {"name": "cursor", "version": None}
    assert CallSummary.of(call()).client is None
