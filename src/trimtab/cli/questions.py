"""Commands that answer questions about data, keys, objectives and the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.cli.app import AsJson, Words, app
from trimtab.cli.words import show

if TYPE_CHECKING:
    pass


@app.command
def keys(*, as_json: AsJson = False) -> None:
    """Every configuration key with its default and meaning."""
    from trimtab import config

    rows = [
        {
            "key": name,
            "default": config.default_of(name),
            "meaning": section.model_fields[name.split(".")[-1]].description,
        }
        for name, section in config.keys().items()
    ]
    show(rows, as_json, lambda rows: [f"--{r['key']:30} {r['default']!s:16} {r['meaning'] or ''}" for r in rows])


@app.command
def audit(data: str, *words: Words, as_json: AsJson = False) -> None:
    """Read preference pairs and say what is wrong with them: DATA [--model M] [--data.KEY VALUE]."""
    from trimtab.commands import audit as command
    from trimtab.config import parsing as written

    _, flags = written.read_flags(words)
    show(command.main(data, flags), as_json, command.lines)


@app.command
def objectives(*, as_json: AsJson = False) -> None:
    """Every objective with its formula, parameters and dead zone."""
    from dataclasses import asdict

    from trimtab import objectives as module

    rows = [asdict(row) | {"parameters": dict(row.parameters)} for row in module.table()]
    show(rows, as_json, _objective_lines)


@app.command
def doctor(*, as_json: AsJson = False) -> None:
    """Versions, hardware, folders: what a bug report needs and what a run will use."""
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
