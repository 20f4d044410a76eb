"""The commands: what each does and where its function is. A function is imported when its command is called, so that
`trimtab --help` answers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.help import DefaultFormatter

from trimtab.version import __version__

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions


def _one_name(entry: HelpEntry) -> tuple[str, ...]:
    """`--model` of `--model.name --model`, else the first name."""
    names = entry.positive_names
    section = names[0].partition(".")[0] if names else ""
    return (section,) if section in names else names[:1]


class _OneName(DefaultFormatter):
    """Help that shows each flag under one name: the other forms of eighty keys would hide what they mean."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        if panel.format == "parameter":
            panel = panel.copy(entries=[entry.copy(positive_names=_one_name(entry)) for entry in panel.entries])
        super().__call__(console, options, panel)


app = App(
    name="trimtab",
    version=__version__,
    help="Align small language models with preference pairs, and say honestly whether it helped.",
    help_format="plaintext",
    help_formatter=_OneName(),
)


def switch(help: str, *, name: str | None = None) -> Parameter:
    """A flag that is off unless it is given, and has no opposite."""
    return Parameter(name=name, negative=(), show_default=False, help=help)


AsJson = Annotated[bool, switch("print one JSON object on stdout, nothing else", name="--json")]

_KEYS = "A key may leave out its section where that names one key only, and a section alone is its main key."
# command -> its function and what `--help` says of it; the first line stands in the list of commands
COMMANDS = {
    "run": (
        "pipeline:run",
        f"""Prepare, reference, train, generate, judge and report: [CONFIG or RUN] [--section.key VALUE].

        Without CONFIG, --model and --data it runs the embedded wind tunnel, offline, in minutes. {_KEYS}
        """,
    ),
    "prepare": ("pipeline:prepare", "Read, audit and tokenise the pairs: CONFIG or RUN, then --section.key VALUE."),
    "reference": ("pipeline:reference", "Cache the frozen model's log-probs: CONFIG or RUN, then --section.key VALUE."),
    "train": (
        "pipeline:train",
        "Train, resuming from the newest checkpoint: CONFIG or RUN, then --section.key VALUE.",
    ),
    "generate": (
        "pipeline:generate",
        "Answer the benchmark's prompts, before and after: CONFIG or RUN, then --section.key VALUE.",
    ),
    "judge": (
        "pipeline:judge",
        """Judge the answers: CONFIG, RUN or a file of answers, then --section.key VALUE.

        A file of answers (AlpacaEval's model_outputs, FastChat's model_answer) needs --benchmark and --judge.
        """,
    ),
    "report": (
        "pipeline:report",
        "Write report.html, report.md and report.json: CONFIG or RUN, then --section.key VALUE.",
    ),
    "init": (
        "first_minutes:init",
        """Write a commented recipe for your model and pairs, and say what it will cost: [--model M] [--data D].

        What is not given is asked, where there is a terminal to ask on.
        """,
    ),
    "convert": (
        "first_minutes:convert",
        """Carry a DPO configuration of TRL, the alignment-handbook, LLaMA-Factory or Axolotl over: FILE [--to FILE].

        Every key that could not be carried over is named, with the reason.
        """,
    ),
    "plan": ("pipeline:plan", "Say what a run or a sweep would do and need, without starting it: CONFIG, or keys."),
    "reward": (
        "pipeline:reward",
        """Train a reward model on pairs: DATA --model M [--out DIR] [--section.key VALUE].

        The same audit, hold-out, engine and resuming as `run`, which goes on with it, too. A tenth of the prompts is
        held out unless --data.holdout says otherwise. Use it as --judge reward:DIR.
        """,
    ),
    "sweep": (
        "pipeline:sweep",
        """Map a grid: [CONFIG] [--grid KEY=V1,V2] [--grid KEY=V1,V2] [--seeds K] [--section.key VALUE].

        CONFIG may hold the sweep itself ([sweep.grid], [[sweep.points]]); --grid replaces an axis of it or adds one.
        Every point is a run like any other, below --out; the same command goes on with a stopped sweep.
        """,
    ),
    "pairs": (
        "pairs:pairs",
        """Make pairs of a model's own answers: PROMPTS --model M --judge JUDGE [--samples K] [--out pairs.jsonl].

        PROMPTS is a file of prompts or of pairs, or `windtunnel`. JUDGE is reward:DIR, openai:MODEL, FILE.py:FUNCTION,
        command:WORDS or, in the wind tunnel, oracle. The audit follows at once; stopped, the same command goes on.
        A file of verdicts (the arena's, or any annotations file) needs neither model nor judge: its answers are paired.
        """,
    ),
    "audit": (
        "questions:audit",
        """Read preference pairs and say what is wrong with them: DATA [--model M] [--data.KEY VALUE].

        Ends with a verdict: exit code 0 where a run would start on them, 1 where it would refuse.
        """,
    ),
    "ls": ("first_minutes:ls", "The runs in a folder: objective, regime, win rate, size. [FOLDER], runs by default."),
    "cache": (
        "first_minutes:cache",
        """What cached references, answers and checkpoints take; --prune KIND[,KIND] and --move-to FOLDER.

        Verdicts and the pairs of Python callers go only by name: the first may have been paid for.
        """,
    ),
    "keys": ("questions:keys", "Every configuration key with its default and meaning."),
    "objectives": ("questions:objectives", "Every objective with its formula, parameters and dead zone."),
    "doctor": ("questions:doctor", "Versions, hardware, folders: what a bug report needs and what a run will use."),
    "winrate": (
        "judgments:winrate",
        "Win rate, raw and length-controlled, of any AlpacaEval annotations file; mean marks with --kind mt_bench.",
    ),
    "compare": (
        "judgments:compare",
        "Is A better than B? Runs (RUN, RUN:unaligned) or files of judgments (FILE, FILE:MODEL), paired by prompt.",
    ),
    "arena": (
        "judgments:arena",
        """Judge two runs by eye, blind, on a local page. A, B: RUN, RUN:baseline, RUN:unaligned or a file of answers.

        Every choice is kept at once; the same command goes on.
        """,
    ),
    "power": ("judgments:power", "What a number of prompts can show: --n 805 --delta 2.0 (points of win rate)."),
    "calibrate": (
        "results:calibrate",
        "Calibration before and after, on held-out pairs: reward gap, next token, drift. Writes calibration.html.",
    ),
    "check": (
        "results:check",
        """Did it harm? Tasks of lm-eval before and after, paired: RUN --tasks FILE.yaml,NAME. In the report, too.

        Needs pip install 'trimtab[check]'. What a model has answered is kept, so a stopped check goes on. With
        --before FOLDER --after FOLDER it reads what lm-eval run --log_samples wrote of any two models.
        """,
    ),
    "probe": (
        "results:probe",
        "Do pairs with the longer chosen response leave training first? Several RUNs stand side by side: probe.html.",
    ),
    "chat": (
        "results:chat",
        "Talk to an aligned model, a line a turn: RUN or a model's folder. An empty line ends it.",
    ),
    "export": (
        "results:export",
        """Copy the aligned model out of a run: --format hf (as trained), merged (adapter folded in) or gguf.

        gguf writes a file for llama.cpp and a Modelfile for Ollama; --quantize f32, f16 or q8_0.
        """,
    ),
    "push": (
        "results:push",
        """Put the aligned model on the Hugging Face Hub, with its card: RUN OWNER/NAME [--private] [--merged].

        --dry-run shows the files and the card, and sends nothing. The token is the Hub client's: hf auth login, or
        $HF_TOKEN.
        """,
    ),
}

for _command, (_place, _help) in COMMANDS.items():
    app.command(f"trimtab.cli.{_place}", name=_command, help=_help)
app.command(  # cyclopts' own would import its installer at every start
    "trimtab.cli.first_minutes:install_completion",
    name="--install-completion",
    help="Complete commands and flags in this shell (bash, zsh or fish).",
)
