"""`sweep.html`: the maps first, the tables behind them, and what it cost. No number is made here."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.reporting.sections import (
    Bullets,
    Cell,
    Code,
    Link,
    Map,
    Maps,
    Page,
    Section,
    Sentence,
    SummaryEntry,
    Table,
    Text,
    sentence,
)
from trimtab.reporting.text import counted, duration, estimate_text, number
from trimtab.reporting.words.summary import brief, certainty
from trimtab.studies.sweep import words
from trimtab.studies.sweep.grid import POINT
from trimtab.studies.sweep.maps import FigureMap, MapMeasure, PointResult, measures
from trimtab.studies.sweep.result import NOTES, SweepResult
from trimtab.studies.sweep.words import value_text

DEPTH = 40  # percent of a colour at the far end of a map's scale
# a map whose figures lie closer together than this stays pale: points of win rate around 50, share of the largest
LEAST_POINTS = 10.0
LEAST_SHARE = 0.2


def sweep_page(result: SweepResult) -> Page:
    """Everything that the page says."""
    model, data = (
        result.base[section].get(key, "in the grid") for section, key in (("model", "name"), ("data", "source"))
    )
    sentences = [sentence(text, "plain" if i == 0 else "even") for i, text in enumerate(words.sentences(result))]
    return Page(
        kind="sweep",
        title="Sweep over " + " and ".join(map(_axis_name, result.keys)),
        subject=[
            *((_axis_name(key), ", ".join(map(value_text, values))) for key, values in result.axes()),
            ("seeds" if len(result.seeds) > 1 else "seed", ", ".join(map(str, result.seeds))),
            ("model", model),
            ("data", data),
        ],
        summary=_summary(result, sentences[0]),
        sentences=[*sentences, *(sentence(f"{run.name} failed: {run.error}", "bad") for run in result.failed_runs)],
        sections=[_maps_section(result), _cost_section(result), _words_section()],
        json_name="sweep.json",
    )


def _summary(result: SweepResult, showed: Sentence) -> list[SummaryEntry]:
    """`showed`: the sentence about the highest point, or where there is none about the runs."""
    n_points, n_seeds = len(result.points), len(result.seeds)
    runs = f"{counted(n_points, 'point')} over {' and '.join(map(_axis_name, result.keys))}, {counted(n_seeds, 'seed')}"
    sure = [sentence(certainty(n_seeds, "prompts"))]
    if n_points > 1:
        sure.append(
            sentence(f"The highest of {n_points} points was lucky, too: its interval does not allow for the choice.")
        )
    sure += [sentence(f"{n} of {len(result.runs)} runs failed.", "bad")] if (n := len(result.failed_runs)) else []
    entries = [
        SummaryEntry("What was trained", [sentence(f"{runs} each.")]),
        SummaryEntry("What helped most?", [showed], main=True),
        SummaryEntry("How sure?", sure),
    ]
    return brief(entries)


def _axis_name(key: str) -> str:
    return "points" if key == POINT else key


def _maps_section(result: SweepResult) -> Section:
    lead = (
        "Small figures are 95 % intervals. Starved points have a dashed border, linear ones a dotted one. The same "
        "command makes this page again:"
    )
    tables = [*([_settings_table(result)] if POINT in result.keys else []), _figures_table(result)]
    maps = Maps([_map(figure_map) for figure_map in result.maps()])
    return Section("maps", "Maps", "Maps", [Text(lead, "lead"), Code(result.command), maps, *tables])


def _cost_section(result: SweepResult) -> Section:
    text = Text(words.cost_sentence(result.cost))
    return Section("cost", "Cost", "What it cost", [text, _runs_table(result)])


def _words_section() -> Section:
    return Section("words", "Words", "What these numbers mean", [Bullets(NOTES)])


# --- maps ------------------------------------------------------------------------------------------------------------


def _map(figures: FigureMap) -> Map:
    estimates = [figures.measure.estimate(point) for row in figures.cells for point in row]
    values = [estimate.value for estimate in estimates if estimate is not None and estimate.value is not None]
    keys = [figures.row_key, *([figures.column_key] if figures.column_key else [])]
    names = [key.rpartition(".")[2] for key in keys]
    row_name, *column_name = names if len(set(names)) == len(names) else keys
    return Map(
        title=figures.measure.title,
        row_axis=row_name,
        column_axis="".join(column_name),
        head=[value_text(value) for value in figures.column_values] if column_name else [figures.measure.unit],
        rows=[
            (value_text(value), [_cell(point, figures.measure, values) for point in row])
            for value, row in zip(figures.row_values, figures.cells, strict=True)
        ],
        note=", ".join(f"{key} = {value_text(value)}" for key, value in figures.facet.items()),
        named=figures.row_key == POINT,
    )


def _cell(point: PointResult, measure: MapMeasure, values: Sequence[float]) -> Cell:
    """`values`: of all points on the map, between which the colour is picked."""
    regimes = point.regimes
    counts = {"starved": regimes.count("starved"), "linear": regimes.count("linear"), "shrunk": measure.n_shrunk(point)}
    marks = [name if len(regimes) == 1 else f"{name} {n} of {len(regimes)}" for name, n in counts.items() if n]
    estimate = measure.estimate(point)
    if estimate is None or estimate.value is None:
        return Cell("–", marks=marks)
    bounds = [number(end, digits=measure.digits) for end in estimate.ci95 or ()]
    colour = _colour(estimate.value, values, is_rate=measure.rate_key is not None)
    return Cell(number(estimate.value, digits=measure.digits), " to ".join(bounds), colour, marks)


def _colour(value: float, values: Sequence[float], *, is_rate: bool) -> str:
    """A CSS colour: one hue from the lowest to the highest, or two away from 50 for win rates."""
    if is_rate:
        farthest = max(LEAST_POINTS, *(abs(rate - 50) for rate in values))
        name, share = ("after" if value >= 50 else "rejected"), abs(value - 50) / farthest
    else:
        spread = max(max(values) - min(values), LEAST_SHARE * max(map(abs, values))) or 1.0
        name, share = "third", (value - min(values)) / spread
    return f"color-mix(in srgb, var(--{name}) {DEPTH * share:.0f}%, transparent)"


# --- tables ----------------------------------------------------------------------------------------------------------


def _figures_table(result: SweepResult) -> Table:
    columns = measures(result.points)
    rows = []
    for point in result.points:
        figures = [estimate_text(measure.estimate(point), digits=measure.digits) for measure in columns]
        accuracy = estimate_text(point.numbers.answers.heldout_accuracy if point.numbers else None, digits=3)
        n_done = f"{point.count('done')} of {len(point.runs)}"
        rows.append([point.name, *figures, accuracy, words.regime_text(point), n_done])
    head = ["point", *(measure.title for measure in columns), "held-out accuracy", "regime", "seeds done"]
    return Table(head, rows, title="every figure of every point", open=True)


def _settings_table(result: SweepResult) -> Table:
    """What each written-out point sets beside the axes of the grid."""
    points = {str(point.values[POINT]): point.settings for point in result.points}
    keys = [key for key in dict.fromkeys(key for point in points.values() for key in point) if key not in result.keys]
    rows = [[name, *(value_text(point[key]) if key in point else "" for key in keys)] for name, point in points.items()]
    return Table(["point", *keys], rows, title="what each point sets", open=True)


def _runs_table(result: SweepResult) -> Table:
    rows = []
    for run in result.runs:
        rows.append(
            [
                Link(run.name, f"points/{run.name}/report.html") if run.state == "done" else run.name,
                run.state,
                run.host or "",
                duration(run.seconds),
                ", ".join(f"{task} {seconds:.1f} s" for task, seconds in run.task_seconds.items()),
                ", ".join(result.cost.from_cache.get(run.name, {})) or "nothing",
                run.error or "",
            ]
        )
    head = ["run", "state", "made on", "took", "computed", "shared work served from a cache", "error"]
    return Table(head, rows, title="every run, what it computed and what it was served", text=True)
