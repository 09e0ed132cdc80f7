"""What the documentation says is there, and what is there the documentation says."""

import ast
import re
from pathlib import Path

from pydantic import BaseModel

from dashboards.links import TITLES
from gateway.calls import ErrorType
from gateway.config import (
    PLANS,
    Config,
    HttpServer,
    Journal,
    Jwt,
    Metrics,
    Model,
    Otlp,
    Redaction,
    Requests,
    StdioServer,
    Token,
    UsageLimits,
    Workspace,
)
from gateway.observer.signals import METRICS, PROCESS_METRICS

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def settings() -> set[str]:
    """Every setting's name as `docs/configuration.md` writes it."""
    sections: dict[str, type[Model]] = {
        "api.jwt": Jwt,
        "otlp": Otlp,
        "journal": Journal,
        "metrics": Metrics,
        "requests": Requests,
        "redaction": Redaction,
        "usage": UsageLimits,
    }
    names = {f"{section}.{field}" for section, model in sections.items() for field in model.model_fields}
    names |= {f"workspaces.<slug>.{field}" for field in Workspace.model_fields if field not in ("servers", "tokens")}
    names |= {"workspaces.<slug>.servers.<slug>", "workspaces.<slug>.tokens[].id", "observer.listen"}
    models: tuple[type[BaseModel], ...] = (HttpServer, StdioServer, Token)
    names |= {f"….{field}" for model in models for field in model.model_fields if field != "id"}
    names |= {name for name in Config.model_fields if name in ("listen", "data_dir", "ledger")}
    return names | {"plans.<name>.retention_days", "plans.<name>.calls_per_month"}


def test_the_configuration_page_names_every_setting_and_no_other() -> None:
    rows = [row.split("|")[1] for row in PAGES["configuration.md"].splitlines() if row.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert documented == settings()


def test_the_configuration_page_has_the_plans_as_they_are() -> None:
    for name, plan in PLANS.items():
        days = "unlimited" if plan.retention_days is None else f"{plan.retention_days} days"
        calls = "unlimited" if plan.calls_per_month is None else f"{plan.calls_per_month:,}"
        assert f"| {name} | {days} | {calls} |" in PAGES["configuration.md"]


def test_the_metrics_page_has_a_row_for_every_metric_and_no_other() -> None:
    rows = {line for line in PAGES["metrics.md"].splitlines() if line.startswith("| `mcp_")}
    assert rows == {
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |" for metric in METRICS
    }
    assert all(f"`{name}`" in PAGES["metrics.md"] for name in PROCESS_METRICS)


def test_the_architecture_page_explains_every_error_type() -> None:
    assert all(f"`{error_type}`" in PAGES["architecture.md"] for error_type in ErrorType)


def test_the_dashboards_page_names_every_dashboard_and_no_other() -> None:
    rows = re.findall(r"^\| (\w+) \| `(callscope-\w+)` \|", PAGES["dashboards.md"], re.MULTILINE)
    assert {uid: f"Callscope / {name}" for name, uid in rows} == {str(uid): title for uid, title in TITLES.items()}


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_architecture_page_has_every_module_of_the_call_path_with_the_job_that_its_docstring_gives_it() -> None:
    expected = []
    for package in ("http1", "relay", "upstream", "journal"):
        for path in sorted((ROOT / "gateway" / package).glob("[!_]*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            job = docstring.partition("\n\n")[0].replace("\n", " ")
            expected.append(f"| `{package}/{path.stem}` | {job} |")
    table = [line for line in PAGES["architecture.md"].splitlines() if re.match(r"\| `\w+/\w+` \|", line)]
    assert table == expected


def test_every_file_that_the_guides_for_developers_name_exists() -> None:
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"):
        for name in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text()):
            assert (ROOT / name).exists() or (ROOT / "gateway" / name).exists(), f"{page.name} names {name}"
