"""Words -> configuration -> stage; errors -> exit codes.

Nothing heavy is imported before a command needs it: `trimtab --help` must answer at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from trimtab import __version__
from trimtab.errors import ConfigError, StopError, TrimtabError

if TYPE_CHECKING:
    from trimtab.config import Config

app = App(
    name="trimtab",
    version=__version__,
    help="Align small language models with preference pairs, and say honestly whether it helped.",
    help_format="plaintext",
)

Words = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="print one JSON object on stdout, nothing else")]


def main(argv: Sequence[str] | None = None) -> None:
    """The console script. Exits 0 done, 1 failed, 2 the words were wrong, 128 + n stopped by signal n."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        app(words, exit_on_error=False, print_error=False, help_on_error=False, result_action="return_value")
    except TrimtabError as error:
        _fail(str(error), error.exit_code, debug)
    except CycloptsError as error:
        _fail(f"{error}\n  → `trimtab --help` lists the commands and `trimtab COMMAND --help` their words", 2, debug)
    except KeyboardInterrupt:
        _fail("stopped", 130, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        _fail(
            f"unexpected {type(error).__name__}: {error}\n  → this is a defect of trimtab; --debug shows where",
            1,
            debug,
        )


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        raise  # noqa: PLE0704  # called from an except block only: the traceback is what was asked for
    from trimtab.progress import printable

    print("trimtab: " + "\n".join(printable(line) for line in message.split("\n")), file=sys.stderr)
    sys.exit(code)


# --- the pipeline ----------------------------------------------------------------------------------------------------


@app.command
def run(*words: Words) -> None:
    """Prepare, reference, train, generate, judge and report: [CONFIG] [--model M] [--data D] [--section.key VALUE].

    Without CONFIG, --model and --data it runs the embedded wind tunnel, offline, in minutes.
    `trimtab keys` lists every key. --resume goes on with a stopped run; --quiet prints plain lines, no bars;
    --dry-run says what the judge would be asked and what that costs (add --json for one JSON object), and stops there.
    """
    from trimtab.commands import run as command

    config, switches = _read(words, allow=frozenset({"resume", "quiet", "dry-run", "json"}))
    if _told_only(config, switches):
        return
    command.main(config, reporter=_reporter("quiet" in switches), resume="resume" in switches)


def _told_only(config: Config, switches: set[str]) -> bool:
    """With --dry-run: say what judging would take, and do nothing."""
    if "dry-run" not in switches:
        if "json" in switches:
            raise ConfigError("--json has no effect here", remedy="use it with --dry-run, or with a reporting command")
        return False
    from trimtab.commands import dry_run

    _show(dry_run.main(config), "json" in switches, dry_run.lines)
    return True


def _stage(name: str, summary: str) -> None:
    def command(*words: Words) -> None:
        config, switches = _read(words, allow=frozenset({"quiet"}))
        _run_stage(name, config, _reporter("quiet" in switches))

    command.__doc__ = f"{summary}: CONFIG or a run folder, then --section.key VALUE."
    app.command(command, name=name)


def _run_stage(name: str, config: Config, reporter: Any) -> None:
    from importlib import import_module

    runner, stage = import_module("trimtab.commands.run"), import_module(f"trimtab.stages.{name}")
    with runner.begun(config, reporter=reporter):
        for single in runner.seeds(config, reporter=reporter):
            stage.main(single, reporter=reporter)
            if name == "judge":
                stage.refuse_if_incomplete(single)
        if name == "report" and config.seeds > 1:
            stage.main(config, reporter=reporter)


for _name, _summary in {
    "prepare": "Read, audit and tokenise the pairs",
    "reference": "Cache the frozen model's log-probs",
    "train": "Train, resuming from the newest checkpoint",
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
    from trimtab.commands import judge_file

    if words and judge_file.holds_answers(words[0]):
        _judge_file(words[0], words[1:])
        return
    config, switches = _read(words, allow=frozenset({"quiet", "dry-run", "json"}))
    if not _told_only(config, switches):
        _run_stage("judge", config, _reporter("quiet" in switches))


def _judge_file(file: str, words: Sequence[str]) -> None:
    from trimtab import written
    from trimtab.commands import judge_file, winrate

    switches, rest = _switches(words, allow=frozenset({"quiet", "json"}))
    named, flags = written.read_flags(rest)
    if named:
        raise ConfigError(f"unexpected word {named[0]!r}", remedy="keys are written --section.key VALUE")
    told = judge_file.main(file, judge_file.resolve(file, flags), reporter=_reporter("quiet" in switches))
    _show(told, "json" in switches, winrate.lines)


@app.command
def plan(*words: Words, as_json: AsJson = False) -> None:
    """Say what a run would do and need, without starting it: CONFIG, or the keys of `run`."""
    from trimtab.commands import plan as command

    config, _ = _read(words)
    _show(command.plan(config, reporter=_reporter(quiet=False)), as_json, command.lines)


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
    _show(rows, as_json, lambda rows: [f"--{r['key']:30} {r['default']!s:16} {r['meaning'] or ''}" for r in rows])


# --- questions about data, objectives, the machine -----------------------------------------------------------------


@app.command
def audit(data: str, *words: Words, as_json: AsJson = False) -> None:
    """Read preference pairs and say what is wrong with them: DATA [--model M] [--data.KEY VALUE]."""
    from trimtab import written
    from trimtab.commands import audit as command

    _, flags = written.read_flags(words)
    _show(command.main(data, flags), as_json, command.lines)


@app.command
def objectives(*, as_json: AsJson = False) -> None:
    """Every objective with its formula, parameters and dead zone."""
    from dataclasses import asdict

    from trimtab import objectives as module

    rows = [asdict(row) | {"parameters": dict(row.parameters)} for row in module.table()]
    _show(rows, as_json, _objective_lines)


@app.command
def doctor(*, as_json: AsJson = False) -> None:
    """Versions, hardware, folders: what a bug report needs and what a run will use."""
    from trimtab.commands import doctor as command

    _show(command.main(), as_json, command.lines)


# --- numbers from judgments ------------------------------------------------------------------------------------------


@app.command
def winrate(
    file: str,
    *,
    kind: str = "alpaca_eval",
    difficulty: str | None = None,
    gamed: str | None = None,
    questions: str | None = None,
    benchmark_dir: str | None = None,
    allow_missing: bool = False,
    offline: bool = False,
    as_json: AsJson = False,
) -> None:
    """Win rate, raw and length-controlled, of any AlpacaEval annotations file; mean marks with --kind mt_bench."""
    from trimtab.commands import winrate as command

    told = command.main(
        file,
        kind=kind,
        difficulty=difficulty,
        gamed=gamed,
        questions=questions,
        benchmark_dir=benchmark_dir,
        allow_missing=allow_missing,
        offline=offline,
    )
    _show(told, as_json, command.lines)


@app.command
def compare(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    judge: str | None = None,
    questions: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Is A better than B? Runs (RUN, RUN:unaligned) or files of judgments (FILE, FILE:MODEL), paired by prompt."""
    from trimtab.commands import compare as command

    _show(command.main(a, b, benchmark=benchmark, judge=judge, questions=questions), as_json, command.lines)


@app.command
def arena(
    a: str,
    b: str,
    *,
    benchmark: str | None = None,
    benchmark_dir: str | None = None,
    out: str | None = None,
    port: int = 0,
    limit: int | None = None,
    seed: int = 0,
    name: str = "anonymous",
    browser: bool = True,
    as_json: AsJson = False,
) -> None:
    """Judge two runs by eye, blind, on a local page. A, B: RUN, RUN:baseline, RUN:unaligned or a file of answers.

    Every choice is kept at once; the same command goes on. --limit N judges a random N of the prompts, --name WHO says
    who judged, --out FILE where the verdicts are written.
    """
    from trimtab.commands import arena as command

    told = command.main(
        a,
        b,
        benchmark=benchmark,
        benchmark_dir=benchmark_dir,
        out=out,
        port=port,
        limit=limit,
        seed=seed,
        name=name,
        browser=browser,
        reporter=_reporter(quiet=False),
    )
    _show(told, as_json, command.lines)


@app.command
def power(*, n: int, delta: float, as_json: AsJson = False) -> None:
    """What a number of prompts can show: --n 805 --delta 2.0 (points of win rate)."""
    from trimtab.commands import compare as command

    _show(command.power(n, delta), as_json, command.power_lines)


# --- using the result ------------------------------------------------------------------------------------------------


@app.command
def chat(run_folder: str) -> None:
    """Talk to an aligned model."""
    from trimtab.commands import chat as command

    command.main(run_folder)


@app.command
def export(run_folder: str, *, format: str = "hf", to: str | None = None) -> None:  # the flag's own name
    """Copy the aligned model out of a run: --format hf (as trained) or merged (adapter folded into the weights)."""
    from trimtab.commands import export as command

    print(command.main(run_folder, format=format, to=to))


# --- words -----------------------------------------------------------------------------------------------------------


def _read(words: Sequence[str], *, allow: frozenset[str] = frozenset()) -> tuple[Config, set[str]]:
    """The configuration that the words mean, and the bare switches among them."""
    from trimtab import config, written

    switches, rest = _switches(words, allow)
    named, flags = written.read_flags(rest)
    if len(named) > 1:
        raise ConfigError(f"unexpected word {named[1]!r}", remedy="keys are written --section.key VALUE")
    return config.resolve(config.merge(_base(named[0] if named else None, flags), flags)), switches


def _switches(words: Sequence[str], allow: frozenset[str]) -> tuple[set[str], list[str]]:
    """The switches among the words, and the other words."""
    switches = {word[2:] for word in words if word.startswith("--") and word[2:] in allow}
    return switches, [word for word in words if not (word.startswith("--") and word[2:] in switches)]


def _base(named: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What the flags are laid on: a file, a run folder's resolved configuration, or the embedded world's recipe."""
    from trimtab import config, written

    if named is not None:
        path = Path(named)
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ConfigError(
                    f"{path} is no run folder: it has no config.json", remedy="name a run or a config file"
                )
            return written.read_file(path / "config.json") | {"out": named}  # also where the folder was moved
        return written.read_file(path)
    if written.names_an_input(flags):
        return {}
    return written.read_file(config.EMBEDDED_RECIPE)


def _reporter(quiet: bool) -> Any:
    import logging

    from trimtab import progress

    reporter = progress.reporter(quiet=quiet)

    class Say(logging.Handler):
        """The engine's warnings, as lines that do not cut into a progress bar."""

        def emit(self, record: logging.LogRecord) -> None:
            reporter.say(record.getMessage())

    logger = logging.getLogger("trimtab")
    logger.handlers, logger.propagate = [Say()], False
    return reporter


def _show(value: Any, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    if as_json:
        print(json.dumps(value, ensure_ascii=False, allow_nan=False))
        return
    from trimtab.progress import printable

    for line in lines(value):
        print(printable(line))


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


__all__ = ["StopError", "app", "main"]

if __name__ == "__main__":
    main()
