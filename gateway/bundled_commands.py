"""`callscope dashboards export` and `callscope rules export`: what Grafana and Prometheus need."""

from pathlib import Path
from typing import Literal

import click

from gateway import manifests
from gateway.bundled import RUNBOOK, bundled, with_runbook_at, write
from gateway.terminal.exit_codes import reports_errors

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def dashboards() -> None:
    """Grafana dashboards."""


@dashboards.command("export")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "configmap"]),
    default="json",
    show_default=True,
    help="JSON that Grafana imports or provisions, or a Kubernetes ConfigMap of each for its sidecar.",
)
@FOLDER
@reports_errors
def export_dashboards(folder: Path, form: Literal["json", "configmap"]) -> None:
    """Write the dashboards into FOLDER."""
    found = bundled("dashboards")
    if form == "configmap":
        found = {manifests.file_name(name): manifests.config_map(name, content) for name, content in found.items()}
    for path in write("dashboards", found, folder):
        click.echo(path)


@click.group()
def rules() -> None:
    """Prometheus rules: what some panels of the dashboards read, and alerts."""


@rules.command("export")
@click.option(
    "--format",
    "form",
    type=click.Choice(["prometheus", "prometheusrule"]),
    default="prometheus",
    show_default=True,
    help="Files for `rule_files` of Prometheus, or a Kubernetes PrometheusRule of each for its operator.",
)
@click.option("--runbook", metavar="URL", help=f"Where the runbook is served: alerts lead there, and not to {RUNBOOK}.")
@FOLDER
@reports_errors
def export_rules(folder: Path, form: Literal["prometheus", "prometheusrule"], runbook: str | None) -> None:
    """Write the recording rules and alerts into FOLDER, and beside them the alerts' runbook."""
    found = bundled("rules")
    if runbook is not None:
        found = with_runbook_at(runbook, found)
    if form == "prometheusrule":
        found = {manifests.file_name(name): manifests.prometheus_rule(name, content) for name, content in found.items()}
    for path in write("rules", {**found, **bundled("runbook")}, folder):
        click.echo(path)
