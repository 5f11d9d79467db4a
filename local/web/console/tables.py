"""The rows of every table, read-only, a page at a time."""

from collections.abc import Mapping
from typing import Any

from local.settings import Settings
from local.web.console import sources

_PAGE = 50
_LONGEST = 600  # characters of a value; the rest is cut
_TABLES = """
select c.relname as name, c.relkind = 'v' as view, greatest(c.reltuples, 0)::bigint as estimate
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = current_schema() and c.relkind in ('r', 'v', 'p')
  and has_table_privilege(c.oid, 'select')
order by c.relname
"""
_COLUMNS = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
       coalesce(i.indisprimary, false) as key
from pg_attribute a
left join pg_index i on i.indrelid = a.attrelid and i.indisprimary and a.attnum = any(i.indkey)
where a.attrelid = to_regclass(:name) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""
# The first of these that a table has puts its newest rows first.
_NEWEST = ("created_at", "received_at", "recorded_at", "updated_at", "began_at", "at")


def listed(stack: Settings) -> dict[str, Any]:
    """Return the tables and views that the functions may read."""
    with sources.database(stack) as reader:
        return {"tables": reader.rows(_TABLES)}


def rows(stack: Settings, name: str, asked: Mapping[str, str]) -> dict[str, Any] | None:
    """Return a page of a table, newest first where it has a time; None when there is no such table.

    `page` counts from 0; `where` and `is` select the rows with that value in that column.
    """
    page = int(asked["page"]) if asked.get("page", "").isdigit() else 0
    with sources.database(stack) as reader:
        tables = {row["name"]: row for row in reader.rows(_TABLES)}
        if name not in tables:
            return None
        columns = reader.rows(_COLUMNS, name=name)
        known = [column["name"] for column in columns]
        # The names come from the catalogue, never from the request.
        where, value = "", None
        if asked.get("where") in known:
            where, value = f"where {_quoted(asked['where'])}::text = :value", asked.get("is", "")
        bound = {"value": value} if where else {}
        order = [f"{_quoted(c)} desc" for c in _NEWEST if c in known][:1]
        order += [_quoted(column["name"]) for column in columns if column["key"]]
        found = reader.rows(
            f"select {', '.join(f'{_quoted(c)}::text as {_quoted(c)}' for c in known)}"
            f" from {_quoted(name)} as t {where} order by {', '.join(_in(o) for o in order) or '1'}"
            f" limit {_PAGE + 1} offset {page * _PAGE}",
            **bound,
        )
        [count] = reader.rows(f"select count(*) as count from {_quoted(name)} {where}", **bound)
    return {
        "name": name,
        "columns": columns,
        "rows": [{key: _cut(item) for key, item in row.items()} for row in found[:_PAGE]],
        "page": page,
        "more": len(found) > _PAGE,
        "count": count["count"],
        "perPage": _PAGE,
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _in(order: str) -> str:
    return f"t.{order}"  # the column, not the text that is selected


def _cut(value: str | None) -> str | None:
    if value is None or len(value) <= _LONGEST:
        return value
    return f"{value[:_LONGEST]}… ({len(value)} characters)"
