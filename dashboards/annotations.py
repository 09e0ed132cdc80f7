"""What happened to the gateway, drawn into every chart: restarts, new configurations, alerts."""

from dashboards.grafanalib_ext import Json, data_source
from dashboards.promql import Scope
from dashboards.queries.gateway import FIRING
from gateway.observer.signals import CONFIG_RELOADS


def annotations() -> list[Json]:
    """The events, and Grafana's own annotations."""
    scope = Scope()
    started = scope.own(f"changes({scope.of_target('process_start_time_seconds')}[$__rate_interval])")
    reloads = f"sum by (status) (increase({scope.select(CONFIG_RELOADS)}[$__rate_interval])) > 0"
    return [
        {
            "name": "Annotations & Alerts",
            "type": "dashboard",
            "builtIn": 1,
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
        },
        _event("Restarts", f"sum by (instance) ({started}) > 0", "purple", "Observer restarted", "{{instance}}"),
        _event("Configuration", reloads, "blue", "Configuration read again", "{{status}}"),
        _event("Alerts", FIRING, "red", "{{alertname}}", "{{severity}} {{workspace}} {{server}}"),
    ]


def _event(name: str, expr: str, color: str, title: str, text: str) -> Json:
    return {
        "name": name,
        "datasource": data_source("prometheus"),
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "",
        "useValueForTime": "",
    }
