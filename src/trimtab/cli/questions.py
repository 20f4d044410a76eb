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
from trimtab.engine.processes import START_SECONDS, is_started, join


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

    if not is_started():
        show(command.main(), as_json, command.lines)
        return
    from trimtab.commands import dry_start

    processes = join(timeout=START_SECONDS)
    with processes.one_message():
        result = dry_start.main(command.main(), processes)
        if processes.is_first:
            show(result, as_json, lambda _: command.lines(result.diagnosis) + dry_start.lines(result))


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
