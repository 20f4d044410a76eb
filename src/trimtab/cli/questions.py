"""Commands that answer questions about data, keys, objectives and the machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trimtab import config
from trimtab import objectives as losses
from trimtab.cli.app import AsJson
from trimtab.cli.configuration import NO_KEYS
from trimtab.cli.terminal import show
from trimtab.config.flags import DataKeys, tree


def keys(*, as_json: AsJson = False) -> None:
    rows = [
        {"key": name, "default": config.default_of(name), "meaning": config.field_of(name).description}
        for name in config.keys()  # noqa: SIM118  # a function of the module, no mapping
    ]
    show(rows, as_json, lambda rows: [f"--{r['key']:30} {r['default']!s:16} {r['meaning'] or ''}" for r in rows])


def audit(data: str, /, *, as_json: AsJson = False, keys: DataKeys = NO_KEYS) -> None:
    from trimtab.commands import audit as command

    result = command.main(data, tree(keys))
    show(result, as_json, command.lines)
    result.require_start()


def objectives(*, as_json: AsJson = False) -> None:
    rows = [asdict(row) | {"parameters": dict(row.parameters)} for row in losses.table()]
    show(rows, as_json, _objective_lines)


def doctor(*, as_json: AsJson = False) -> None:
    from trimtab.commands import doctor as command

    show(command.main(), as_json, command.lines)


def _objective_lines(rows: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        parameters = ", ".join(f"{name}={value}" for name, value in row["parameters"].items())
        lines += [
            f"{row['name']}({parameters})",
            f"    {row['formula']}",
            f"    dead zone: {row['dead_zone']}",
            f"    {row['source']}",
        ]
    return lines
