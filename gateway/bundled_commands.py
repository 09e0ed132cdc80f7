"""`callscope dashboards export` and `callscope rules export`: what Grafana and Prometheus need."""

from pathlib import Path

import click

from gateway.bundled import export
from gateway.terminal.endings import reports_mistakes

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def dashboards() -> None:
    """Grafana dashboards."""


@dashboards.command("export")
@FOLDER
@reports_mistakes
def export_dashboards(folder: Path) -> None:
    """Write the dashboards into FOLDER, as JSON that Grafana imports or provisions."""
    for path in export("dashboards", folder):
        click.echo(path)


@click.group()
def rules() -> None:
    """Prometheus rules: what the dashboards of weeks and months read, and alerts."""


@rules.command("export")
@FOLDER
@reports_mistakes
def export_rules(folder: Path) -> None:
    """Write the recording rules and alerts into FOLDER, for `rule_files` of Prometheus."""
    for path in export("rules", folder):
        click.echo(path)
