"""A sweep for people: one self-contained HTML page, and lines for a terminal. No number is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trimtab.reporting import render
from trimtab.reporting.text import MISSING, duration, number, shown, visible
from trimtab.studies.sweep.grid import POINT

_DEPTH = 40  # percent of a colour at the far end of a map's scale
# a map whose figures lie closer together than this stays pale: points of win rate around 50, share of the largest
_LEAST_POINTS = 10.0
_LEAST_SHARE = 0.2


def html(told: Mapping[str, Any]) -> str:
    """The page of `sweep.json`: maps first, the tables behind them; no script, nothing fetched, every text escaped."""
    return render.html(page(told), template="sweep.html.j2")


def page(told: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template prints."""
    seeds = told["seeds"]
    return {
        "title": "Sweep over " + " and ".join(map(_plural, told["grid"])),
        "subject": [
            *((_plural(key), ", ".join(_value(value) for value in values)) for key, values in told["grid"].items()),
            ("seeds" if len(seeds) > 1 else "seed", ", ".join(map(str, seeds))),
            ("model", told["base"]["model"].get("name", "in the grid")),
            ("data", told["base"]["data"].get("source", "in the grid")),
        ],
        "verdict": sentences(told),
        "failed": told["failed"],
        "maps": [_map(one) for one in told["maps"]],
        "table": table(told),
        "settings": settings(told),
        "cost": cost_sentence(told["cost"]) + elsewhere_sentence(told),
        "runs": _runs(told),
        "command": told["command"],
        "notes": told["notes"],
        "trimtab": told["trimtab"],
    }


def sentences(told: Mapping[str, Any]) -> list[str]:
    """What the sweep showed, the most important first."""
    states = ", ".join(f"{n} {state}" for state, n in told["states"].items())
    found = [f"{_counted(len(told['points']), 'point')} with {_counted(len(told['seeds']), 'seed')} each: {states}."]
    top = told["highest"]
    if top is not None:
        apart = (
            f"the intervals of {top['n_overlapping']} of the {top['n_others']} other points overlap its own"
            if top["n_overlapping"]
            else f"no interval of the {top['n_others']} other points overlaps its own"
        )
        figure = f"{shown(top['figure'], digits=_digits(top['unit']))} {top['unit']}"
        found.insert(0, f"Highest {top['what']}: {figure} at {top['point']}, judged by {top['judge']}; {apart}.")
    for regime in ("starved", "linear"):
        named = [p["name"] for p in told["points"] if p["numbers"] and regime in p["numbers"]["regimes"]]
        if named:
            found.append(f"{regime.capitalize()}: {', '.join(named)}.")
    return found


def _digits(unit: str) -> int:
    return {"steps": 0, "of 10": 2}.get(unit, 1)


def cost_sentence(cost: Mapping[str, Any]) -> str:
    """The sweep against its runs made one by one, each with the caches empty."""
    if cost["share"] is None:
        return "No run has taken any time yet."
    return (
        f"The runs took {duration(cost['seconds'])}; each alone, with nothing in the caches, they would have taken "
        f"{duration(cost['seconds_alone'])}, so the sweep cost {100 * cost['share']:.0f} % of that. Counted are "
        "seconds measured in this sweep; starting processes is in neither."
    )


def elsewhere_sentence(told: Mapping[str, Any]) -> str:
    """Where the runs of other machines are; empty without any."""
    if not told.get("elsewhere"):
        return ""
    return (
        f" Not counted here: {_counted(told['elsewhere'], 'run')} of other machines. Run folders stayed where they "
        "were made; where seeds of one point come from several machines, their figures are pooled from what each told."
    )


# --- maps ------------------------------------------------------------------------------------------------------------


def _map(told: Mapping[str, Any]) -> dict[str, Any]:
    values = [
        cell["figure"]["value"]
        for row in told["cells"]
        for cell in row
        if cell["figure"] and cell["figure"]["value"] is not None
    ]
    digits = _digits(told["unit"])
    where = ", ".join(f"{key} = {_value(value)}" for key, value in told["where"].items())
    columns = told["columns"]
    short = {key: key.rpartition(".")[2] for key in (told["rows"]["key"], columns["key"]) if key}
    names = short if len(set(short.values())) == len(short) else {key: key for key in short}
    return {
        "title": told["title"],
        "where": where,
        "rows": names[told["rows"]["key"]],
        "named": told["rows"]["key"] == POINT,
        "columns": names.get(columns["key"]),
        "head": [_value(value) for value in columns["values"]] if columns["key"] else [told["unit"]],
        "body": [
            (_value(value), [_cell(cell, values, told, digits=digits) for cell in row])
            for value, row in zip(told["rows"]["values"], told["cells"], strict=True)
        ],
    }


def _cell(cell: Mapping[str, Any], values: Sequence[float], told: Mapping[str, Any], *, digits: int) -> dict[str, Any]:
    figure = cell["figure"]
    known = figure is not None and figure["value"] is not None
    marks = [
        word if cell["n_seeds"] == 1 else f"{word} {cell[word]} of {cell['n_seeds']}"
        for word in ("starved", "linear")
        if cell[word]
    ]
    return {
        "value": number(figure["value"], digits=digits) if figure and known else "–",
        "interval": _bounds(figure, digits=digits) if figure and known else "",
        "colour": _colour(figure["value"], values, about_even="win rate" in told["title"]) if figure and known else "",
        "marks": marks,
    }


def _bounds(figure: Mapping[str, Any], *, digits: int) -> str:
    if figure["ci95"] is None:
        return ""
    low, high = (number(bound, digits=digits) for bound in figure["ci95"])
    return f"{low} to {high}"


def _colour(value: float, values: Sequence[float], *, about_even: bool) -> Markup:
    """A CSS colour: one hue from the lowest to the highest, or two away from 50 for win rates."""
    if about_even:
        most = max(_LEAST_POINTS, *(abs(other - 50) for other in values))
        name, share = ("after" if value >= 50 else "rejected"), abs(value - 50) / most
    else:
        spread = max(max(values) - min(values), _LEAST_SHARE * max(map(abs, values))) or 1.0
        name, share = "third", (value - min(values)) / spread
    return Markup(f"color-mix(in srgb, var(--{name}) {_DEPTH * share:.0f}%, transparent)")  # noqa: S704  # our own words


# --- tables ----------------------------------------------------------------------------------------------------------


def table(told: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of every point."""
    titles = list(dict.fromkeys(one["title"] for one in told["maps"]))
    cells: dict[tuple[str, str], Any] = {}
    for one in told["maps"]:
        for cell in (cell for row in one["cells"] for cell in row):
            cells[cell["point"], one["title"]] = (cell["figure"], _digits(one["unit"]))
    rows = []
    for point in told["points"]:
        numbers = point["numbers"] or {}
        figures = [shown(figure, digits=digits) for figure, digits in (cells[point["name"], t] for t in titles)]
        accuracy = shown(numbers.get("heldout_accuracy"), digits=3)
        regimes = ", ".join(dict.fromkeys(name or "unnamed" for name in numbers.get("regimes", ()))) or MISSING
        rows.append([point["name"], *figures, accuracy, regimes, f"{point['n_done']} of {len(point['runs'])}"])
    return {"head": ["point", *titles, "held-out accuracy", "regime", "seeds done"], "rows": rows}


def settings(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """What each written-out point sets; None for a pure grid, whose axes say it all."""
    if POINT not in told["grid"]:
        return None
    sets = {point["values"][POINT]: point["settings"] for point in told["points"]}
    keys = [key for key in dict.fromkeys(key for one in sets.values() for key in one) if key not in told["grid"]]
    rows = [[name, *(_value(one[key]) if key in one else "" for key in keys)] for name, one in sets.items()]
    return {"head": ["point", *keys], "rows": rows}


def _plural(key: str) -> str:
    return "points" if key == POINT else key


def _runs(told: Mapping[str, Any]) -> dict[str, Any]:
    served = told["cost"]["served"]
    rows = []
    for point in told["points"]:
        for one in point["runs"]:
            name = f"{point['name']}/seed-{one['seed']}"
            computed = ", ".join(f"{task} {seconds:.1f} s" for task, seconds in one["computed"].items())
            from_cache = ", ".join(served.get(name, {})) or "nothing"
            rows.append(
                {
                    "name": name,
                    "report": f"points/{name}/report.html"
                    if one["state"] == "done" and not one.get("elsewhere")
                    else None,
                    "cells": [
                        f"{one['state']} on {one['folder']}" if one.get("elsewhere") else one["state"],
                        duration(one["seconds"]),
                        computed,
                        from_cache,
                        one["error"] or "",
                    ],
                }
            )
    return {"head": ["run", "state", "took", "computed", "shared work served from a cache", "error"], "rows": rows}


def lines(told: Mapping[str, Any]) -> list[str]:
    """The table and the sentences for a terminal."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    data = _narrow(told)
    grid = Table(box=None, pad_edge=False)
    for place, name in enumerate(data["head"]):
        grid.add_column(Text(name), justify="left" if place == 0 else "right", overflow="fold")
    for row in data["rows"]:
        grid.add_row(*(Text(visible(cell)) for cell in row))
    out = StringIO()
    Console(file=out, width=140, color_system=None).print(grid)
    return [
        *sentences(told),
        *(line.rstrip() for line in out.getvalue().splitlines()),
        cost_sentence(told["cost"]),
        f"maps and tables: {told['folder']}/sweep.html",
    ]


def _narrow(told: Mapping[str, Any]) -> dict[str, Any]:
    """The point, its first win rates, active share, length, steps and regime: what fits a terminal."""
    rows = []
    kinds = list(dict.fromkeys((r["judge"], r["kind"]) for p in told["points"] for r in _rates(p)))[:3]
    for point in told["points"]:
        numbers = point["numbers"]
        rates = {(row["judge"], row["kind"]): row["win_rate"] for row in _rates(point)}
        cells = [shown(rates.get(kind)) for kind in kinds]
        if numbers is None:
            states = ", ".join(dict.fromkeys(one["state"] for one in point["runs"]))
            rows.append([point["name"], *cells, "", "", "", states])
            continue
        active, length = numbers["active"]["pair"]["value"], numbers["length"]
        rows.append(
            [
                point["name"],
                *cells,
                MISSING if active is None else f"{100 * active:.0f} %",
                number(length["mean"]["value"]) if length else MISSING,
                number(numbers["steps_to_90"]["value"], digits=0),
                ", ".join(dict.fromkeys(name or "unnamed" for name in numbers["regimes"])),
            ]
        )
    heads = [f"{judge} {kind}" if kind != "true" else "true win rate" for judge, kind in kinds]
    return {"head": ["point", *heads, "active", "length", "to 90 %", "regime"], "rows": rows}


def _rates(point: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(point["numbers"]["win_rates"]) if point["numbers"] else []


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _value(value: Any) -> str:
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)
