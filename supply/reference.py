"""The reference as pages: commands with their flags, keys, objectives; one JSON object {page: Markdown} on stdout."""

from __future__ import annotations

import inspect
import io
import json
import sys
from itertools import groupby
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from trimtab import config
from trimtab.cli.app import COMMANDS, app
from trimtab.objectives import table

WIDTH = 100  # characters of a help page


def cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def commands() -> str:
    parts = ["# Commands\n\nEvery reporting command takes `--json`. A key of the [configuration](keys.md) is a flag of "
             "every command that takes CONFIG.\n"]  # fmt: skip
    for name, (_, text) in COMMANDS.items():
        meaning = inspect.cleandoc(text).replace("[", "\\[")  # no link
        parts.append(f"## trimtab {name}\n\n{meaning}\n")
        if flags := own_flags(name):
            parts.append(f"```text\n{flags}\n```\n")
    return "\n".join(parts)


def own_flags(name: str) -> str:
    """The panel of flags, without those that are keys."""
    out = io.StringIO()
    app.help_print([name], console=Console(file=out, width=WIDTH, color_system=None))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    names = list(config.keys())
    keys = {f"--{name}" for name in names} | {f"--{name.partition('.')[0]}" for name in names}
    flags: list[str] = []
    skipping = False
    for line in lines:
        word = line.strip("│ ").split(" ")[0].replace("_", "-")
        if word.startswith("--") or line.startswith(("╭", "╰")) or not line.startswith("│"):
            skipping = word in {key.replace("_", "-") for key in keys}
        if line.startswith("│") and not skipping:
            flags.append(line.strip("│").strip())
    return "\n".join(flags)


def default_text(default: object) -> str:
    if default is None or default == "required":
        return default or ""
    return f"`{cell(json.dumps(default, default=str))}`"


def keys() -> str:
    rows = []
    for section, names in groupby(config.keys(), key=lambda key: key.rpartition(".")[0]):
        rows.append(f"\n## {section or 'At the top'}\n\n| key | default | meaning |\n|---|---|---|")
        for name in names:
            text = default_text(config.default_of(name))
            rows.append(f"| `{name}` | {text} | {cell(config.field_of(name).description or '')} |")
    return (
        "# Configuration keys\n\nIn a recipe (TOML, YAML or JSON) by section; on the command line "
        "`--section.key VALUE`.\n" + "\n".join(rows)
    )


def objectives() -> str:
    rows = [
        f"| `{row.name}` | {cell(row.formula)} | {', '.join(f'{key} {value}' for key, value in row.parameters)} | "
        f"{cell(row.dead_zone)} | {cell(row.source)} |"
        for row in table()
    ]
    head = "| name | loss of one pair | parameters | dead zone | source |\n|---|---|---|---|---|\n"
    return (
        "# Objectives, by formula\n\nr is a log-ratio in nats, z = β(r_w − r_l). How they behave: "
        "[objectives](../objectives.md).\n\n" + head + "\n".join(rows)
    )


if __name__ == "__main__":
    pages = {"reference/commands.md": commands(), "reference/keys.md": keys(), "reference/objectives.md": objectives()}
    json.dump(pages, sys.stdout)
