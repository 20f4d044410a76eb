"""Rounds of self-improvement: sample, judge, train, and again with the model that came of it.

    prompts ──► a part for each round, and some held back
    round k     newest model answers its part ─► judge ─► round-k/pairs.jsonl ─► a run ─► round-k/run/model
    progress    after each round: its answers to the held-back prompts against the first model's, by the same judge

Each part is asked once, so k rounds cost as many judged answers as one round over all prompts. Everything is kept as it
is made (answers and verdicts in the caches, runs in their folders), so the same command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimtab import store, windtunnel
from trimtab.analysis.winrate import WinRate, win_rate
from trimtab.commands import run
from trimtab.commands.pairs import prompts_of, require, write
from trimtab.config import Config, merge, resolve, to_json
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.records import Message, digest
from trimtab.runtime import set_up
from trimtab.runtime.answer_judges import AnswerJudge, Candidates, answer_judge
from trimtab.runtime.benchmark_prompts import evaluation_tasks
from trimtab.runtime.prompt_source import Prompts, SourcePrompt
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.sampled_pairs import PairingOptions, judged_pairs, sampled_answers
from trimtab.runtime.signals import stop_on_signal

ReferenceChoice = Literal["first", "newest"]
_OF_EVALUATION = (
    "benchmark",
    "judge",
    "generate",
    "windtunnel",
    "base_url",
)  # sections that a round's run has no use for
_OF_PROMPTS = ("source", "split", "columns", "limit", "sample", "seed")


@dataclass(frozen=True, slots=True)
class RoundOptions:
    """rounds: how many. reference: the first model in every round, or each round's own start. held_back: share of the
    prompts that measure progress and make no pairs; the embedded world has prompts of its own for that."""

    rounds: int
    reference: ReferenceChoice = "newest"
    held_back: float = 0.1


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One round. `against_first`, `against_previous`: win rates of its model on the held-back prompts."""

    model: str
    n_pairs: int
    mean_characters: float
    against_first: WinRate
    against_previous: WinRate

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "pairs": self.n_pairs,
            "mean_characters": self.mean_characters,
            "against_first": self.against_first.to_json(),
            "against_previous": self.against_previous.to_json(),
        }


@dataclass(frozen=True, slots=True)
class RoundsResult:
    """All rounds so far, in order."""

    folder: Path
    judge: str
    reference: ReferenceChoice
    n_held_back: int
    first_characters: float
    rounds: tuple[RoundResult, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "judge": self.judge,
            "reference": self.reference,
            "held_back_prompts": self.n_held_back,
            "first_mean_characters": self.first_characters,
            "rounds": [result.to_json() for result in self.rounds],
        }

    def lines(self) -> list[str]:
        """A round a line."""
        return [
            f"win rates on {self.n_held_back:,} held-back prompts, by {self.judge} (the first model's answers: "
            f"{self.first_characters:.0f} characters)",
            *(
                f"round {number}: {_rate(result.against_first)} against the first model, "
                f"{_rate(result.against_previous)} against the one before; {result.n_pairs:,} pairs; "
                f"{result.mean_characters:.0f} characters"
                for number, result in enumerate(self.rounds, start=1)
            ),
            f"newest model: {self.rounds[-1].model}",
        ]


def main(config: Config, pairing: PairingOptions, options: RoundOptions, *, reporter: Reporter) -> RoundsResult:
    """Every round that is not done yet, and `rounds.json`. Raises UserError before anything is sampled for what cannot
    be run, and what sampling, judging and training raise."""
    root = Path(config.out)
    _require(config, options)
    require(config, pairing)
    setup = set_up(config)
    prompts, held_back = _split(config, options)
    if len(prompts.sound) < options.rounds or not held_back:
        raise ConfigError(
            f"{len(prompts.sound)} prompts for {options.rounds} rounds and {len(held_back)} held back are too few",
            remedy="bring more prompts, or ask for fewer rounds",
        )
    with store.lock(root):
        _claim(root, config, pairing, options)
        return _rounds(setup, pairing, options, prompts, held_back, reporter=reporter)


def _rounds(
    setup: RunSetup,
    pairing: PairingOptions,
    options: RoundOptions,
    prompts: Prompts,
    held_back: Sequence[SourcePrompt],
    *,
    reporter: Reporter,
) -> RoundsResult:
    root, first = Path(setup.config.out), setup.model_folder
    models, texts = [first], [_held_back_answers(setup, first, held_back, reporter=reporter)]
    results: list[RoundResult] = []
    for number in range(1, options.rounds + 1):
        reporter.say(f"round {number} of {options.rounds}: {models[-1]} answers")
        part = prompts.sound[number - 1 :: options.rounds]
        path = root / f"round-{number}" / "pairs.jsonl"
        answers = sampled_answers(
            setup, models[-1], part, samples=pairing.samples, reporter=reporter, description="sampling answers"
        )
        account = judged_pairs(setup, part, answers, options=pairing, reporter=reporter)
        result_file = write(path, setup.config, account, prompts.dropped_rows if number == 1 else ())
        for line in account.lines():
            reporter.say(line)
        result_file.audit.require_start()
        reference = first if options.reference == "first" and number > 1 else None
        folder = run.main(_run_config(setup.config, path, models[-1], reference), reporter=reporter)
        models.append(folder.model)
        texts.append(_held_back_answers(setup, folder.model, held_back, reporter=reporter))
        name, rates = _win_rates(setup, held_back, texts, reporter=reporter)
        results.append(RoundResult(str(folder.model), len(account.pairs), _mean_length(texts[-1]), *rates))
        result = RoundsResult(root, name, options.reference, len(held_back), _mean_length(texts[0]), tuple(results))
        store.write_json(root / "rounds.json", result.to_json())
        store.write_text(root / "rounds.md", "\n".join(f"- {line}" for line in result.lines()) + "\n")
    return result


def _require(config: Config, options: RoundOptions) -> None:
    if options.rounds < 1:
        raise ConfigError(f"--rounds {options.rounds} is no number of rounds", remedy="write --rounds 3")
    if not 0 < options.held_back < 1:
        raise ConfigError(f"--held-back {options.held_back:g} is no share", remedy="write --held-back 0.1")
    if config.generate.sampler == "openai":
        raise ConfigError("a server does not have the newest model", remedy="leave --generate.sampler out")
    if config.seeds > 1:
        raise ConfigError(f"seeds = {config.seeds}: rounds train one model each", remedy="start one command a seed")
    if config.objective.value().on_scores:
        raise ConfigError(f"{config.objective.name} trains no model that answers", remedy="name another objective")
    if options.reference == "first" and not config.objective.value().needs_reference:
        raise ConfigError(f"{config.objective.name} compares with no reference", remedy="leave --reference out")


def _split(config: Config, options: RoundOptions) -> tuple[Prompts, tuple[SourcePrompt, ...]]:
    """Prompts that make pairs, and those that measure. By each prompt's own text, so that it stays when files grow."""
    prompts = prompts_of(config)
    if config.data.source == windtunnel.NAME:
        tasks = evaluation_tasks(config.windtunnel.prompts)
        return prompts, tuple(SourcePrompt(task.id, (Message("user", task.prompt),), task=task) for task in tasks)
    sides: tuple[list[SourcePrompt], list[SourcePrompt]] = ([], [])
    for prompt in prompts.sound:
        # another draw than the one by which a run holds pairs out: their prompts would all be gone
        place = int(digest(["held back", [message.to_json() for message in prompt.messages]])[:8], 16) / 2**32
        sides[place < options.held_back].append(prompt)
    return Prompts(tuple(sides[0]), prompts.dropped_rows), tuple(sides[1])


def _claim(root: Path, config: Config, pairing: PairingOptions, options: RoundOptions) -> None:
    """The folder is this command's. Raises ConfigError where it holds something else, or rounds of another command.

    More rounds are another division of the prompts, so their number counts, too."""
    path = root / "rounds-config.json"
    tree = to_json(config.model_copy(update={"out": "", "base_url": None, "offline": False}))
    own = {"config": tree, "pairing": _plain(pairing), "rounds": _plain(options)}
    if not path.exists() and (root / "round-1").exists():
        raise ConfigError(f"{root} holds something else already", remedy="name another folder with --out")
    if path.exists() and store.read_json(path) != own:
        earlier = store.read_json(path)
        names = [name for name in own if earlier.get(name) != own[name]]
        raise ConfigError(
            f"{root} holds rounds of another command ({', '.join(names)} differ)",
            remedy="name another folder with --out, or delete this one",
        )
    store.write_json(path, own)


def _plain(options: PairingOptions | RoundOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def _run_config(config: Config, pairs: Path, model: Path, reference: Path | None) -> Config:
    """The run of one round: the newest model on its own pairs."""
    tree = {name: section for name, section in to_json(config).items() if name not in _OF_EVALUATION}
    tree["data"] = {name: value for name, value in tree["data"].items() if name not in _OF_PROMPTS}
    own = {
        "data": {"source": str(pairs)},
        "model": {"name": str(model), "gguf": None, "revision": None, "template": None},
        "out": str(pairs.parent / "run"),
    }
    parameters = {name: value for name, value in tree["objective"].items() if value is not None}
    tree = merge(tree, own) | {"objective": parameters}
    return resolve(tree if reference is None else merge(tree, {"model": {"reference": str(reference)}}))


def _held_back_answers(
    setup: RunSetup, folder: Path, held_back: Sequence[SourcePrompt], *, reporter: Reporter
) -> list[str | None]:
    answers = sampled_answers(
        setup, folder, held_back, samples=1, reporter=reporter, description="answering the held-back prompts"
    )
    return [turns[0].text if turns else None for turns in answers]


def _win_rates(
    setup: RunSetup, held_back: Sequence[SourcePrompt], texts: Sequence[Sequence[str | None]], *, reporter: Reporter
) -> tuple[str, tuple[WinRate, WinRate]]:
    """Of the newest model against the first and the one before it. The same answer is a tie that nobody is asked."""
    newest, rates = texts[-1], []
    with stop_on_signal() as stop, answer_judge(setup, reporter=reporter, stop=stop) as judge:
        for baseline in (texts[0], texts[-2]):
            comparable = [
                Candidates(prompt, (old, new))
                for prompt, old, new in zip(held_back, baseline, newest, strict=True)
                if old is not None and new is not None and old != new
            ]
            scores = zip(comparable, judge.scores(comparable), strict=True)
            by_prompt = {item.prompt.id: _preference(judge, *pair) for item, pair in scores}
            preferences = [
                by_prompt.get(prompt.id, 1.5 if old is not None and old == new else None)
                for prompt, old, new in zip(held_back, baseline, newest, strict=True)
            ]
            rates.append(win_rate(preferences))
        name = judge.name
    return name, (rates[0], rates[1])


def _preference(judge: AnswerJudge, old: float | None, new: float | None) -> float | None:
    return None if old is None or new is None else judge.preference(old, new)


def _mean_length(texts: Sequence[str | None]) -> float:
    lengths = [len(text) for text in texts if text is not None]
    return sum(lengths) / max(len(lengths), 1)


def _rate(rate: WinRate) -> str:
    low, high = rate.ci95
    missing = f", {rate.n_missing} without a verdict" if rate.n_missing else ""
    return f"{rate.win_rate:.1f} % (95 %: {low:.1f} to {high:.1f}{missing})"
