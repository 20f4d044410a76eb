"""docs/findings.md from the questions' sections: answers first, then one section each. No number is typed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import making
from experiments.questions import QUESTIONS
from experiments.section import Book, Question, Section, Sweeps, Table
from experiments.sweeps_read import NoSuchPoint, Sweep, read
from trimtab import store

FORMAT = 1
NOT_YET = "Not run yet"
HEAD = """\
What the wind tunnel says about the paper's claims. It is a closed world of eight task families in which an oracle
knows the quality of every answer (correctness, format, coherence; blind to length), and labels whose length bias λ
(nats a word) and noise are dials. It can show that a mechanism exists; it cannot show that it matters for a 7B model.

Every number and every claim on this page is written by `make findings` from the runs that it names, none by hand. They
stand in [experiments/numbers.json](../experiments/numbers.json) with n, interval, command and revision;
`python -m experiments --check` holds new runs against them. Square brackets are 95 % intervals for new seeds on new
prompts; differences are paired by seed and prompt. *Not distinguishable* comes with the difference
that 80 % of such experiments would have seen.""".splitlines()


@dataclass(frozen=True, slots=True)
class Told:
    """The page's text, its drawings by name, and the tree of numbers.json."""

    text: str
    drawings: Mapping[str, str]
    numbers: Mapping[str, Any]


def sweeps_in(runs: Path) -> dict[str, Sweep]:
    """Those that are whole, by name. One on given data goes by the command that holds on every machine."""
    found = {}
    for made in making.SWEEPS:
        sweep = read(runs / made.name)
        if sweep is not None:
            found[made.name] = replace(sweep, command=making.command(made)) if made.data else sweep
    return found


def tell(runs: Path, *, quick: bool = False) -> Told:
    """The page from the sweeps below `runs`; one that is not there is said, and never an error."""
    sweeps = sweeps_in(runs)
    book = Book({name: making.revision_of(sweep.folder) for name, sweep in sweeps.items()})
    sections = {question: _answer(question, sweeps, book) for question in QUESTIONS}
    lines = [
        "# Findings", "",
        *_head(quick), "",
        "## Answers", "",
        *(_first(question, section) for question, section in sections.items()), "",
        *(line for question, section in sections.items() for line in _section(question, section, sweeps)),
        *_how(sweeps, book), "",
    ]  # fmt: skip
    drawn = {one.drawing.name: one.drawing.svg for one in sections.values() if one is not None and one.drawing}
    numbers = {"format": FORMAT, "quick": quick, "numbers": book.entries}
    return Told("\n".join(lines), drawn, numbers)


def _answer(question: Question, sweeps: Sweeps, book: Book) -> Section | None:
    if not all(name in sweeps for name in question.needs):
        return None
    try:
        return question.answer(sweeps, book)
    except NoSuchPoint as why:
        return Section(answers=[f"Not answered: {why}."])


def write(told: Told, *, page: Path, numbers: Path) -> None:
    """The page, `figures/` beside it, and the numbers. Drawings of questions that are gone are deleted."""
    folder = page.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.stem not in told.drawings:
            old.unlink()
    for name, svg in told.drawings.items():
        store.write_text(folder / f"{name}.svg", svg)
    store.write_text(page, told.text)
    store.write_json(numbers, told.numbers)


# --- parts -----------------------------------------------------------------------------------------------------------


def _head(quick: bool) -> list[str]:
    marked = ["> **Quick form.** Tiny runs that exercise the code; their numbers say nothing about the questions.", ""]
    return (marked if quick else []) + [*HEAD]


def _first(question: Question, section: Section | None) -> str:
    told = f"{NOT_YET}." if section is None else section.short or section.answers[0]
    return f"- **[{question.title}](#{anchor(question.title)})** {_begun(told)}"


def _begun(told: str) -> str:
    """A sentence with its capital; names of objectives and Greek letters keep their own."""
    first = told.split(" ", 1)[0]
    return (
        told[:1].upper() + told[1:] if first.isascii() and first.replace("-", "").isalpha() and first != "dpo" else told
    )


def anchor(title: str) -> str:
    """The id that GitHub gives a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _section(question: Question, section: Section | None, sweeps: Sweeps) -> list[str]:
    lines = [f"## {question.title}", "", question.asked, ""]
    missing = [name for name in (*question.needs, *question.wants) if name not in sweeps]
    if section is not None:
        lines += [f"- {_begun(told)}" for told in section.answers] + [""]
        if section.drawing:
            drawing = section.drawing
            lines += [f"![{question.title}](figures/{drawing.name}.svg)", "", f"*{drawing.caption}*", ""]
        if section.table:
            lines += [*_table(section.table), ""]
        if section.meaning:
            lines += [" ".join(section.meaning), ""]
        if section.limits:
            lines += ["What this cannot say: " + " ".join(section.limits), ""]
    if missing:
        lines += [f"{NOT_YET}: {', '.join(f'`{making.command(making.named(name))}`' for name in missing)}.", ""]
    return lines


def _table(table: Table) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return [row(table.head), "|" + "---|" * len(table.head), *(row(cells) for cells in table.rows)]


def _how(sweeps: Sweeps, book: Book) -> list[str]:
    lines = ["## How it was made", ""]
    if not sweeps:
        return [*lines, f"{NOT_YET}."]
    rows = []
    for name, sweep in sweeps.items():
        told = store.read_json(sweep.folder / "sweep.json")
        seconds = told.get("cost", {}).get("seconds")
        n_runs = sum(len(point.runs) for point in sweep.points)
        cost = "–" if seconds is None else f"{seconds / 60:.0f}"
        rows.append([name, f"`{sweep.command}`", f"{n_runs}", cost, book.revisions[name]])
    versions = store.read_json(next(iter(sweeps.values())).points[0].runs[0] / "versions.json")
    hardware, packages = versions["hardware"], versions["packages"]
    return [
        *lines,
        f"{hardware['system']}, {hardware['processor']}, {hardware['cores']} cores; Python {versions['python']}, "
        f"torch {packages['torch']}, transformers {packages['transformers']}; fp32.",
        "",
        *_table(Table(("sweep", "command", "runs", "minutes of runs", "revision"), rows)),
    ]
