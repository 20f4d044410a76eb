"""Prepare: read the pairs, audit every row, tokenise what is sound, and set some prompts aside.

Nothing is dropped in silence: `rejected.jsonl` holds each dropped row's name and reason, `audit.json` the counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from trimtab import store, windtunnel
from trimtab.config import DataSection, GenerateSection, config_digest
from trimtab.data.audit import Audit, Auditor, audit, normalise_prompt
from trimtab.data.chat import ChatTemplate
from trimtab.data.formats import detect_format
from trimtab.data.loading import load_chat_template
from trimtab.data.problems import RowProblem
from trimtab.data.sources import Rows, read_rows
from trimtab.engine.describe import read_config, window
from trimtab.errors import ConfigError, DataError
from trimtab.progress import Reporter
from trimtab.records import Pair, TokenPair, digest
from trimtab.runtime.answering import answer_turns
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.training_inputs import TrainingInputs

ANSWER_TOKENS = 64  # of the embedded model's own answers, at most; its sentences have a dozen


@dataclass(frozen=True, slots=True)
class Inputs:
    """Digests of what a run's pairs are made from. `keys`: of the configuration; `rows`: of the source's, None where
    the embedded world samples them; `benchmark`: of the prompts that pairs are compared with, None without one."""

    keys: tuple[str, ...]
    benchmark: str | None
    tokenizer: str
    weights: str
    adapter: str | None
    rows: str | None

    @property
    def digest(self) -> str:
        """Names what `main` writes. Weights count only where the model itself answers."""
        data, *world = self.keys
        source = [self.rows] if self.rows is not None else [*world, self.weights]
        return digest([data, self.benchmark, self.tokenizer, *source])

    @property
    def training(self) -> TrainingInputs:
        """What a trained model stands on."""
        pairs = digest(self.keys) if self.rows is None else self.rows
        weights = self.weights if self.adapter is None else digest([self.weights, self.adapter])
        return TrainingInputs(pairs, self.tokenizer, weights)


def inputs(setup: RunSetup) -> Inputs:
    """Of the run as it would be prepared now. Raises DataError where the source cannot be read."""
    config, model = setup.config, setup.model_identity
    is_embedded = config.data.source == windtunnel.NAME
    return Inputs(
        keys=tuple(config_digest(config, name) for name in ("data", *(["windtunnel"] if is_embedded else []))),
        benchmark=setup.benchmark.digest if setup.benchmark_name else None,
        tokenizer=model.tokenizer,
        weights=model.weights,
        adapter=model.adapter,
        rows=None if is_embedded else _rows(setup, config.data.limit).digest,
    )


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Write `data/`: pairs.jsonl, train.jsonl, heldout.jsonl, audit.json, rejected.jsonl."""
    folder, inputs_digest = setup.folder, inputs(setup).digest
    if folder.is_done("prepare", inputs_digest):
        reporter.say("prepare: the pairs are prepared already")
        return
    sentences: list[str] = []
    store.commit_folder(folder.data, lambda into: sentences.extend(_write(into, setup, reporter=reporter)))
    folder.finish("prepare", inputs_digest, [folder.data])
    for sentence in sentences:
        reporter.say(f"prepare: {sentence}")


def _write(into: Path, setup: RunSetup, *, reporter: Reporter) -> list[str]:
    """Fill the data folder and say what is in it. Rows go to disk as they are tokenised; none is held in memory.

    A contradiction shows only at its second row, so all texts are looked through once before.
    """
    data, (template, limits) = setup.config.data, template_of(setup)
    source = _source(setup, limit=None, reporter=reporter)
    text_audit = audit(_outcomes(source, "looking through the pairs", reporter=reporter))
    source = replace(source, total=text_audit.n_rows)
    auditor = Auditor(evaluation_prompts=_evaluation_prompts(setup))
    n_train = n_heldout = 0
    with (
        store.JsonLines(into / "pairs.jsonl") as pairs,
        store.JsonLines(into / "train.jsonl") as train,
        store.JsonLines(into / "heldout.jsonl") as heldout,
    ):
        for pair, tokens in _sound_pairs(setup, source, auditor, template, limits, reporter=reporter):
            if pair.id in text_audit.dropped_ids:
                continue
            pairs.append(pair.to_json())
            held_out = is_heldout(pair, share=data.holdout)
            (heldout if held_out else train).append(tokens.to_json())
            n_heldout, n_train = n_heldout + held_out, n_train + (not held_out)
    report = auditor.finish(decode=template.decode, notes=[*source.notes(), *template.loss.sentences])
    if n_train + n_heldout != report.n_kept:
        raise DataError(f"{data.source} changed while it was read", remedy="run the same command again")
    refuse_if_bad(report, max_rejected=data.max_rejected)
    refuse_without_training(n_train, n_heldout)
    store.write_jsonl(into / "rejected.jsonl", (row.to_json() for row in report.dropped_rows))
    sides = {"train": n_train, "heldout": n_heldout}
    store.write_json(
        into / "audit.json",
        report.to_json() | sides | {"template": template.digest, "template_sentence": template.sentence},
    )
    return [*report.lines(), template.sentence, f"{n_train} pairs to train on, {n_heldout} held out"]


@dataclass(frozen=True, slots=True)
class PairsInMemory:
    """Sound pairs with their tokens, in the order of the source, and the account of the rest."""

    pairs: list[Pair]
    tokens: list[TokenPair]
    audit: Audit


def prepare(setup: RunSetup, *, reporter: Reporter, limit: int | None = None) -> PairsInMemory:
    """Everything `main` does but writing. `limit` caps the rows looked at (for an estimate)."""
    template, limits = template_of(setup)
    source = _source(setup, limit=limit, reporter=reporter)
    auditor = Auditor(evaluation_prompts=_evaluation_prompts(setup))
    sound = list(_sound_pairs(setup, source, auditor, template, limits, reporter=reporter))
    report = auditor.finish(decode=template.decode, notes=[*source.notes(), *template.loss.sentences])
    dropped_ids = report.dropped_ids  # a later row contradicted some
    sound = [(pair, tokens) for pair, tokens in sound if pair.id not in dropped_ids]
    return PairsInMemory([pair for pair, _ in sound], [tokens for _, tokens in sound], report)


def refuse_if_bad(audit: Audit, *, max_rejected: float) -> None:
    """Stop before training on a data set of which more than `data.max_rejected` is unusable."""
    if not audit.n_kept:
        raise DataError(
            f"none of the {audit.n_rows} rows is a usable pair\n" + "\n".join(audit.lines()[1:]),
            remedy="`trimtab audit DATA --model M --json` names every row",
        )
    if audit.dropped_share > max_rejected:
        raise DataError(
            f"{len(audit.dropped_rows)} of {audit.n_rows} rows ({audit.dropped_share:.1%}) are bad, "
            f"more than data.max_rejected = {max_rejected:.0%}\n" + "\n".join(audit.lines()[1:]),
            remedy="mend the rows (`trimtab audit DATA --model M --json` names them), or allow more with "
            f"--data.max-rejected {math.ceil(100 * audit.dropped_share) / 100:g}",
        )


def split(sound: PairsInMemory, *, share: float) -> tuple[list[TokenPair], list[TokenPair]]:
    """(train, held out): a prompt goes to one side with all of its pairs, decided by its text and nothing else.

    Raises DataError when the training side is empty.
    """
    train: list[TokenPair] = []
    heldout: list[TokenPair] = []
    for pair, tokens in zip(sound.pairs, sound.tokens, strict=True):
        (heldout if is_heldout(pair, share=share) else train).append(tokens)
    refuse_without_training(len(train), len(heldout))
    return train, heldout


def is_heldout(pair: Pair, *, share: float) -> bool:
    """Whether a pair's prompt is among the `share` of prompts that are held out of training."""
    return int(digest([message.to_json() for message in pair.prompt])[:8], 16) / 2**32 < share


def refuse_without_training(n_train: int, n_heldout: int) -> None:
    """Raises DataError where all pairs are held out."""
    if not n_train:
        raise DataError(
            f"no pair is left to train on: all {n_heldout} are held out",
            remedy="lower data.holdout or bring more prompts",
        )


def count(setup: RunSetup) -> int:
    """Rows that `main` will read."""
    config = setup.config
    if config.data.source == windtunnel.NAME:
        return min(config.windtunnel.pairs, config.data.limit or config.windtunnel.pairs)
    rows = _rows(setup, config.data.limit)
    return sum(1 for _ in rows) if rows.total is None else int(rows.total)


def _rows(setup: RunSetup, limit: int | None) -> Rows:
    config = setup.config
    return read_rows(config.data.source, split=split_name(config.data), limit=limit, offline=config.offline)


def split_name(data: DataSection) -> str | None:
    """The split to read; None for a file, which has none."""
    if not Path(data.source).is_file():
        return data.split
    if data.split != "train":
        raise ConfigError(f"{data.source} is one file: it has no split {data.split!r}", remedy="leave data.split out")
    return None


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows as pairs or problems, from the first again each time; `total` is their number where that is known."""

    outcomes: Callable[[], Iterator[Pair | RowProblem]]
    total: int | None
    notes: Callable[[], list[str]] = list
    """What was left out of the rows so far, a sentence each."""


def _outcomes(source: _Source, description: str, *, reporter: Reporter) -> Iterator[Pair | RowProblem]:
    with reporter.track(description, total=source.total, unit="rows") as advance:
        for outcome in source.outcomes():
            advance(1)
            yield outcome


def _sound_pairs(
    setup: RunSetup,
    source: _Source,
    auditor: Auditor,
    template: ChatTemplate,
    limits: TokenLimits,
    *,
    reporter: Reporter,
) -> Iterator[tuple[Pair, TokenPair]]:
    """Pairs in which the auditor finds nothing wrong, with their tokens; a later row may still contradict one."""
    on_scores = setup.objective.on_scores
    for outcome in _outcomes(source, "reading and tokenising pairs", reporter=reporter):
        pair = auditor.see(outcome)
        if pair is None:
            continue
        tokens = auditor.see_tokens(template.tokenize_pair(pair, **limits))
        if tokens is not None:
            yield pair, template.close(tokens) if on_scores else tokens


def _source(setup: RunSetup, *, limit: int | None, reporter: Reporter) -> _Source:
    config = setup.config
    limit = min((n for n in (limit, config.data.limit) if n is not None), default=None)
    if config.data.source == windtunnel.NAME:
        pairs = embedded_pairs(setup, limit or config.windtunnel.pairs, reporter=reporter)
        return _Source(lambda: iter(pairs), len(pairs))
    rows = _rows(setup, limit)
    shape = detect_format(rows.head, source=config.data.source, columns=config.data.columns)
    return _Source(lambda: (shape.to_pair(row_id, row) for row_id, row in rows), rows.total, lambda: shape.notes)


def embedded_pairs(setup: RunSetup, n: int, *, reporter: Reporter) -> list[Pair]:
    """The embedded world's pairs: two answers of the model itself to each task, labelled with the world's dials."""
    world = setup.config.windtunnel
    pairs: list[Pair] = []
    for part in range(8):  # ties and twins give no pair, so more tasks are drawn until there are enough
        n_tasks = max(64, int(1.6 * (n - len(pairs))))  # with some to spare
        seed = 1000 * world.seed + 2 * part
        tasks = windtunnel.tasks(n_tasks, seed=seed, split="pairs")
        sides = [_own_answers(setup, tasks, seed=seed + side, side=side, reporter=reporter) for side in (0, 1)]
        labels = windtunnel.label(
            tasks,
            sides[0],
            sides[1],
            length_bias=world.length_bias,
            label_noise=world.label_noise,
            seed=seed,
        )
        ids = {pair.id for pair in pairs}
        pairs += [pair for pair in labels.pairs if pair.id not in ids]
        if len(pairs) >= n:
            return pairs[:n]
    raise DataError(f"the embedded world gave {len(pairs)} pairs of {n} asked for", remedy="lower windtunnel.pairs")


def _own_answers(
    setup: RunSetup, tasks: Sequence[windtunnel.Task], *, seed: int, side: int, reporter: Reporter
) -> list[str]:
    """The model's own answers, by the world's dials and not by those of the benchmark."""
    temperature = setup.config.windtunnel.temperature
    decoding = GenerateSection(max_new_tokens=ANSWER_TOKENS, temperature=temperature, seed=seed)
    answers = answer_turns(
        setup.model_folder,
        [(task.prompt,) for task in tasks],
        temperatures=[temperature] * len(tasks),
        decoding=decoding,
        setup=setup,
        reporter=reporter,
        description=f"sampling answers to be labelled ({side + 1} of 2)",
    )
    return [turns[0].text for turns in answers]


class TokenLimits(TypedDict):
    """Of `ChatTemplate.tokenize_pair`."""

    max_prompt_tokens: int
    max_response_tokens: int
    max_tokens: int
    min_response_tokens: int


def template_of(setup: RunSetup) -> tuple[ChatTemplate, TokenLimits]:
    """The tokenizer's template, and the limits (tokens) within which it puts a pair."""
    data, folder = setup.config.data, setup.model_folder
    architecture = read_config(folder, trust_remote_code=setup.config.model.trust_remote_code)
    rows: int | None = getattr(architecture, "vocab_size", None)
    template = load_chat_template(str(folder), offline=True, embedding_rows=rows)
    longest = data.max_prompt_tokens + data.max_response_tokens
    room = (window(architecture) or longest) - (len(template.closing_ids) if setup.objective.on_scores else 0)
    limits = TokenLimits(
        max_prompt_tokens=data.max_prompt_tokens,
        max_response_tokens=data.max_response_tokens,
        max_tokens=min(longest, room),
        min_response_tokens=data.min_response_tokens,
    )
    return template, limits


def _evaluation_prompts(setup: RunSetup) -> frozenset[str] | None:
    if setup.benchmark_name is None:
        return None
    return frozenset(normalise_prompt(prompt.instruction) for prompt in setup.benchmark.prompts)
