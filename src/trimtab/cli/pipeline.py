"""Commands that run the pipeline, or one of its stages, once or over a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.cli.app import AsJson, Words, app
from trimtab.cli.words import base, read, reporter, show, take_switches
from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from trimtab.config import Config


@app.command
def run(*words: Words) -> None:
    """Prepare, reference, train, generate, judge and report: [CONFIG] [--model M] [--data D] [--section.key VALUE].

    Without CONFIG, --model and --data it runs the embedded wind tunnel, offline, in minutes.
    `trimtab keys` lists every key. --resume goes on with a stopped run, --resume-anyway also where the
    length, learning rate or schedule of its training changed; --quiet prints plain lines, no bars;
    --dry-run says what the judge would be asked and what that costs (add --json for one JSON object), and stops there.
    """
    from trimtab.commands import run as command

    config, switches = read(words, allow=frozenset({"resume", "resume-anyway", "quiet", "dry-run", "json"}), asks=True)
    if _told_only(config, switches):
        return
    command.main(
        config,
        reporter=reporter("quiet" in switches),
        resume="resume" in switches,
        resume_anyway="resume-anyway" in switches,
    )


def _told_only(config: Config, switches: set[str]) -> bool:
    """With --dry-run: say what judging would take, and do nothing."""
    if "dry-run" not in switches:
        if "json" in switches:
            raise ConfigError("--json has no effect here", remedy="use it with --dry-run, or with a reporting command")
        return False
    from trimtab.commands import dry_run

    show(dry_run.main(config), "json" in switches, dry_run.lines)
    return True


def _stage(name: str, summary: str) -> None:
    def command(*words: Words) -> None:
        allow = frozenset({"quiet", *(["resume-anyway"] if name == "train" else [])})
        config, switches = read(words, allow=allow, asks=name == "generate")
        _run_stage(name, config, reporter("quiet" in switches), anyway="resume-anyway" in switches)

    command.__doc__ = f"{summary}: CONFIG or a run folder, then --section.key VALUE."
    app.command(command, name=name)


def _run_stage(name: str, config: Config, reporter: Any, *, anyway: bool = False) -> None:
    from importlib import import_module

    from trimtab.runtime import set_up

    runner, stage = import_module("trimtab.commands.run"), import_module(f"trimtab.stages.{name}")
    setup = set_up(config)
    if name == "judge":  # before the folder is told of another judge
        runner.judge_setup.require(config)
    options = {"resume_anyway": True} if anyway else {}  # of train alone
    with runner.begun(setup, reporter=reporter, **options):
        for single in runner.seeds(setup, reporter=reporter):
            stage.main(single, reporter=reporter, **options)
            if name == "judge":
                stage.refuse_if_incomplete(single)
        if name == "report" and config.seeds > 1:
            stage.main(setup, reporter=reporter)


for _name, _summary in {
    "prepare": "Read, audit and tokenise the pairs",
    "reference": "Cache the frozen model's log-probs",
    "train": "Train, resuming from the newest checkpoint (--resume-anyway: though its course changed)",
    "generate": "Answer the benchmark's prompts, before and after",
    "report": "Write report.html, report.md and report.json",
}.items():
    _stage(_name, _summary)


@app.command
def judge(*words: Words) -> None:
    """Judge the answers: CONFIG, a run folder or a file of answers, then --section.key VALUE.

    A file of answers (AlpacaEval's model_outputs, FastChat's model_answer) needs --benchmark and --judge.
    --dry-run says what the judge would be asked and what that costs, and asks nothing (--json: as one JSON object).
    """
    from trimtab.studies.winrate import judge_file

    if words and judge_file.holds_answers(words[0]):
        _judge_file(words[0], words[1:])
        return
    config, switches = read(words, allow=frozenset({"quiet", "dry-run", "json"}), asks=True)
    if not _told_only(config, switches):
        _run_stage("judge", config, reporter("quiet" in switches))


def _judge_file(file: str, words: Sequence[str]) -> None:
    from trimtab.config import parsing as written
    from trimtab.studies.winrate import judge_file
    from trimtab.studies.winrate.words import lines

    switches, rest = take_switches(words, allow=frozenset({"quiet", "json"}))
    named, flags = written.read_flags(rest)
    if named:
        raise ConfigError(f"unexpected word {named[0]!r}", remedy="keys are written --section.key VALUE")
    numbers = judge_file.main(file, judge_file.resolve(file, flags), reporter=reporter("quiet" in switches))
    show(numbers, "json" in switches, lines)


@app.command
def plan(*words: Words, as_json: AsJson = False) -> None:
    """Say what a run or a sweep would do and need, without starting it: CONFIG, or the keys of `run`."""
    from trimtab import config
    from trimtab.commands import plan as command
    from trimtab.config import parsing as written
    from trimtab.runtime import set_up
    from trimtab.studies.sweep import command as sweep
    from trimtab.studies.sweep import plan as planning
    from trimtab.studies.sweep import recipe

    named, flags = written.read_flags(words)
    tree = base(_only(named), flags)
    if recipe.holds_sweep(tree):
        told = planning.plan(sweep.expand(tree, flags), reporter=reporter(quiet=False))
        show(told, as_json, planning.lines)
        return
    resolved = config.resolve(config.merge(tree, flags))
    show(command.plan(set_up(resolved), reporter=reporter(quiet=False)), as_json, command.lines)


def _only(named: Sequence[str]) -> str | None:
    """The one word that may stand before the flags."""
    if len(named) > 1:
        raise ConfigError(f"unexpected word {named[1]!r}", remedy="keys are written --section.key VALUE")
    return named[0] if named else None


@app.command
def sweep(*words: Words) -> None:
    """Map a grid: [CONFIG] [--grid KEY=V1,V2] [--grid KEY=V1,V2] [--seeds K] [--section.key VALUE].

    CONFIG may hold the sweep itself ([sweep.grid], [[sweep.points]]); --grid replaces an axis of it or adds one. Every
    point is a run like any other, below --out; the same command goes on with a stopped sweep. --workers N makes N runs
    at once, --storage URL shares the runs with other machines through a database (pip install 'trimtab[sweep]').
    --retry-failed tries failed runs again, --stop-starved ends a run early in which nothing is active.
    """
    from trimtab.config import parsing as written
    from trimtab.studies.sweep import command

    switches, rest = take_switches(words, allow=frozenset({"json", "quiet", "retry-failed", "stop-starved"}))
    storage, rest = command.read_storage(rest)
    axes, workers, rest = command.read_words(rest)
    named, flags = written.read_flags(rest)
    told = command.main(
        command.expand(base(_only(named), flags), flags, axes=axes),
        words=words,
        reporter=reporter("quiet" in switches),
        workers=workers,
        storage=storage,
        retry_failed="retry-failed" in switches,
        stop_starved="stop-starved" in switches,
    )
    show(told, "json" in switches, command.lines)
    command.require_whole(told)
