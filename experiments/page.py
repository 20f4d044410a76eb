"""docs/findings.md from the questions' sections: answers first, then one section each. No number is typed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import run_sweeps
from experiments.question import Answer, Numbers, Question, Sweeps
from experiments.questions import QUESTIONS
from experiments.read_sweeps import NoSuchPoint, Sweep, read
from trimtab import store
from trimtab.reporting.sections import Link, Table

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
that 80 % of such experiments would have seen. The last sections are of a real model; `python -m experiments --real`
writes them from the committed runs of `experiments/real/`. Their intervals are over the pairs or prompts of the seeds
that have been run; of their numbers only those with an interval stand in numbers.json, and what is known of the reward
model in [experiments/real/reward.json](../experiments/real/reward.json).""".splitlines()


@dataclass(frozen=True, slots=True)
class Findings:
    """The page's text, its pictures by name, and the tree of numbers.json."""

    text: str
    pictures: Mapping[str, str]
    numbers: Mapping[str, Any]


def sweeps_in(runs: Path) -> dict[str, Sweep]:
    """Those that are whole, by name. One on given data goes by the command that holds on every machine."""
    sweeps = {}
    for spec in run_sweeps.SWEEPS:
        sweep = read(runs / spec.name)
        if sweep is not None:
            sweeps[spec.name] = replace(sweep, command=run_sweeps.command(spec.name)) if spec.data else sweep
    return sweeps


def findings(runs: Path, *, quick: bool = False) -> Findings:
    """The page from the sweeps below `runs`; one that is not there is named on it, and never an error."""
    sweeps = sweeps_in(runs)
    numbers = Numbers({name: run_sweeps.revision_of(sweep.folder) for name, sweep in sweeps.items()})
    answers = {question: _answer(question, sweeps, numbers) for question in QUESTIONS}
    lines = [
        "# Findings", "",
        *_head(quick), "",
        "## Answers", "",
        *(_first(question, answer) for question, answer in answers.items()), "",
        *(line for question, answer in answers.items() for line in _section(question, answer, sweeps)),
        *_sources(sweeps, numbers), "",
    ]  # fmt: skip
    pictures = [answer.picture for answer in answers.values() if answer is not None and answer.picture]
    tree = {"format": FORMAT, "quick": quick, "numbers": numbers.entries}
    return Findings("\n".join(lines), {picture.name: picture.svg for picture in pictures}, tree)


def _answer(question: Question, sweeps: Sweeps, numbers: Numbers) -> Answer | None:
    if not all(name in sweeps for name in question.needs):
        return None
    try:
        return question.answer(sweeps, numbers)
    except NoSuchPoint as error:
        return Answer([f"Not answered: {error}."])


def write(findings: Findings, *, page: Path, numbers: Path) -> None:
    """The page, `figures/` beside it, and the numbers. Drawings of questions that are gone are deleted."""
    folder = page.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.stem not in findings.pictures:
            old.unlink()
    for name, svg in findings.pictures.items():
        store.write_text(folder / f"{name}.svg", svg)
    store.write_text(page, findings.text)
    store.write_json(numbers, findings.numbers)


def renew(question: Question, *, page: Path, numbers: Path) -> None:
    """One question's part of a page that is there, and its numbers; the other questions' stay as they are.

    For a question whose runs are committed, while those of the others are not at hand.
    """
    own = Numbers({})
    answer = _answer(question, {}, own)
    text = page.read_text(encoding="utf-8")
    head, answers, *sections = text.split("\n## ")
    title, last = question.title, sections.pop()  # “How it was made” stands last
    lines = _put(answers.rstrip().split("\n"), _first(question, answer), begins=f"- **[{title}]")
    part = "\n".join(_section(question, answer, {})).removeprefix("## ").rstrip() + "\n"
    parts = _put(sections, part, begins=f"{title}\n")
    store.write_text(page, "\n## ".join([head, "\n".join([*lines, ""]), *parts, last]))
    tree = store.read_json(numbers)
    others = {name: entry for name, entry in tree["numbers"].items() if not name.startswith(question.prefix)}
    store.write_json(numbers, tree | {"numbers": others | own.entries})


def _put(texts: list[str], text: str, *, begins: str) -> list[str]:
    """In the place of the one that begins so, or at the end."""
    places = [place for place, old in enumerate(texts) if old.startswith(begins)]
    at = places[0] if places else len(texts)
    return [*texts[:at], text, *texts[at + 1 :]]


# --- parts -----------------------------------------------------------------------------------------------------------


def _head(quick: bool) -> list[str]:
    warning = ["> **Quick form.** Tiny runs that exercise the code; their numbers say nothing about the questions.", ""]
    return (warning if quick else []) + [*HEAD]


def _first(question: Question, answer: Answer | None) -> str:
    text = f"{NOT_YET}." if answer is None else answer.short or answer.sentences[0]
    return f"- **[{question.title}](#{anchor(question.title)})** {_capital(text)}"


def _capital(sentence: str) -> str:
    """A sentence with its capital; names of objectives and Greek letters keep their own."""
    first = sentence.split(" ", 1)[0]
    is_word = first.isascii() and first.replace("-", "").isalpha() and first != "dpo"
    return sentence[:1].upper() + sentence[1:] if is_word else sentence


def anchor(title: str) -> str:
    """The id that GitHub gives a heading."""
    letters = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return letters.replace(" ", "-")


def _section(question: Question, answer: Answer | None, sweeps: Sweeps) -> list[str]:
    lines = [f"## {question.title}", "", question.text, ""]
    if answer is not None:
        lines += _answer_lines(question, answer)
    missing = [name for name in (*question.needs, *question.optional) if name not in sweeps]
    if missing:
        lines += [f"{NOT_YET}: {', '.join(f'`{run_sweeps.command(name)}`' for name in missing)}.", ""]
    return lines


def _answer_lines(question: Question, answer: Answer) -> list[str]:
    lines = [f"- {_capital(sentence)}" for sentence in answer.sentences] + [""]
    if answer.picture:
        lines += [f"![{question.title}](figures/{answer.picture.name}.svg)", "", f"*{answer.picture.caption}*", ""]
    if answer.table:
        lines += [*_table(answer.table), ""]
    if answer.meaning:
        lines += [" ".join(answer.meaning), ""]
    if answer.limits:
        lines += ["What this cannot say: " + " ".join(answer.limits), ""]
    return lines


def _table(table: Table) -> list[str]:
    def row(cells: Sequence[str | Link]) -> str:
        return "| " + " | ".join(map(str, cells)) + " |"

    return [row(table.head), "|" + "---|" * len(table.head), *(row(cells) for cells in table.rows)]


def _sources(sweeps: Sweeps, numbers: Numbers) -> list[str]:
    lines = ["## How it was made", ""]
    if not sweeps:
        return [*lines, f"{NOT_YET}."]
    rows = []
    for name, sweep in sweeps.items():
        seconds = store.read_json(sweep.folder / "sweep.json").get("cost", {}).get("seconds")
        n_runs = sum(len(point.runs) for point in sweep.points)
        cost = "–" if seconds is None else f"{seconds / 60:.0f}"
        rows.append([name, f"`{sweep.command}`", f"{n_runs}", cost, numbers.revisions[name]])
    versions = store.read_json(next(iter(sweeps.values())).points[0].runs[0] / "versions.json")
    hardware, packages = versions["hardware"], versions["packages"]
    return [
        *lines,
        f"The sweeps: {hardware['system']}, {hardware['processor']}, {hardware['cores']} cores; "
        f"Python {versions['python']}, torch {packages['torch']}, transformers {packages['transformers']}; fp32.",
        "",
        *_table(Table(("sweep", "command", "runs", "minutes of runs", "revision"), rows)),
    ]
