"""Tables: the same labels' values side by side.

Grafana finds a field by its display name where it renames and orders (`organize`), and by that or its own name where it
chooses (`filterFieldsByName`, `byName`). A data source may give a field another display name: that is `also`.
"""

from collections.abc import Sequence
from typing import Any

from dashboards.fields import GOOD, Links, Steps, defaults_of, override, thresholds
from dashboards.grafanalib_ext import Json, Panel, Target, TempoTarget


class Column:
    """A table's column: the field's name, what it is called, and how it looks; `also` is another name of the field."""

    def __init__(
        self,
        field: str,
        title: str,
        unit: str = "",
        *,
        also: str = "",
        links: Links = (),
        steps: Steps = (),
        first: str = GOOD,
        **more: Any,
    ) -> None:
        self.fields = [field, also] if also else [field]
        self.title = title
        self._properties: dict[str, Any] = {
            **({"unit": unit} if unit else {}),
            **({"links": list(links)} if links else {}),
            **(
                {"thresholds": thresholds(steps, first), "custom__cellOptions": {"type": "color-text"}} if steps else {}
            ),
            **more,
        }

    def override(self) -> Json | None:
        """The column's own properties, if it has any."""
        return override(self.title, **self._properties) if self._properties else None


def table(
    title: str,
    description: str,
    targets: Sequence[Target],
    columns: Sequence[Column],
    *,
    sort: str,
    width: int = 24,
    height: int = 10,
    before: Sequence[Json] = (),
    since: str | None = None,
) -> Panel:
    """Rows with the same labels become one; only `columns` are shown, in their order, the highest `sort` first.

    Spans stay as they are: Tempo sends how far a search is beside them, which would become a row, or part of one.
    """
    spans = all(isinstance(target, TempoTarget) for target in targets)
    merged = [] if spans else [{"id": "merge", "options": {}}]
    options = {
        "showHeader": True,
        "cellHeight": "sm",
        "sortBy": [{"displayName": sort, "desc": True}],
        "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
    }
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": True}
    return Panel(
        type="table",
        title=title,
        description=description,
        targets=targets,
        options=options,
        defaults=defaults_of("short", (), (), "text", noValue="", color={"mode": "thresholds"}, custom=custom),
        overrides=[found for column in columns if (found := column.override()) is not None],
        transformations=[*before, *merged, *_chosen(columns)],
        since=since,
        width=width,
        height=height,
    )


def _chosen(columns: Sequence[Column]) -> list[Json]:
    """The columns' fields alone, by their titles and in their order."""
    titles = {field: column.title for column in columns for field in column.fields}
    return [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(titles)}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "includeByName": {},
                "indexByName": {field: place for place, field in enumerate(titles)},
                "renameByName": titles,
            },
        },
    ]


def from_labels(numbers: Sequence[str]) -> list[Json]:
    """Log lines as a table's rows: a record's attributes are its columns, and these of them are numbers."""
    conversions = [{"targetField": name, "destinationType": "number"} for name in numbers]
    return [
        {"id": "extractFields", "options": {"source": "labels", "format": "json", "replace": False, "keepTime": False}},
        {"id": "convertFieldType", "options": {"fields": {}, "conversions": conversions}},
    ]
