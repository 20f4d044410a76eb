"""Prepare: read the pairs, audit every row, tokenise what is sound, and set some prompts aside.

Nothing is dropped in silence: `rejected.jsonl` holds each dropped row's name and reason, `audit.json` the counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from trimtab import store, windtunnel
from trimtab.config import GenerateSection, config_digest
from trimtab.data.audit import Auditor, audit, normalise_prompt
from trimtab.data.audit_result import Audit
from trimtab.data.chat import ChatTemplate
from trimtab.data.heldout import SIDES, Side, Split, SplitCounts
from trimtab.data.loading import load_chat_template
from trimtab.data.pair_rules import Rule
from trimtab.data.problems import Reason, RowProblem
from trimtab.data.refusals import refuse_bad_evaluation, refuse_if_bad, refuse_one_kind, refuse_without_training
from trimtab.engine.describe import read_config, window
from trimtab.errors import DataError
from trimtab.progress import Reporter
from trimtab.records import Pair, TokenPair, Unpaired, digest
from trimtab.runtime.answering import answer_turns
from trimtab.runtime.pair_source import (
    Outcome,
    PairSource,
    RowDigests,
    evaluation_rows,
    mixture,
    pair_source,
    read_for,
    refuse_idle,
    row_digests,
)
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.training_inputs import TrainingInputs

ANSWER_TOKENS = 64  # of the embedded model's own answers, at most; its sentences have a dozen


@dataclass(frozen=True, slots=True)
class Inputs:
    """Digests of what a run's pairs are made from. `keys`: of the configuration; `rows`: of the source's, None where
    the embedded world samples them; `benchmark`: of the prompts that pairs are compared with, None without one;
    `is_unpaired`: whether rows are single responses."""

    keys: tuple[str, ...]
    benchmark: str | None
    tokenizer: str
    weights: str
    adapter: str | None
    rows: RowDigests | None
    is_unpaired: bool

    @property
    def digest(self) -> str:
        """Names what `main` writes. Weights count only where the model itself answers."""
        data, *world = self.keys
        source = [self.rows.digest] if self.rows is not None else [*world, self.weights]
        return digest([data, self.benchmark, self.tokenizer, *source, *(["unpaired"] if self.is_unpaired else [])])

    @property
    def training(self) -> TrainingInputs:
        """What a trained model stands on."""
        weights = self.weights if self.adapter is None else digest([self.weights, self.adapter])
        if self.rows is None:
            return TrainingInputs(digest(self.keys), self.tokenizer, weights)
        sources, evaluation = digest(self.rows.sources), self.rows.evaluation
        return TrainingInputs(self.rows.digest, self.tokenizer, weights, sources=sources, evaluation=evaluation)


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
        rows=None if is_embedded else row_digests(config.data, offline=config.offline),
        is_unpaired=setup.objective.is_unpaired,
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

    A contradiction shows only at its second row, and so does another spelling of a prompt: all texts are looked through
    once before.
    """
    data, (template, limits) = setup.config.data, template_of(setup)
    source, split = _source(setup, limit=None, reporter=reporter), Split(data.holdout, evaluation=data.eval_label)
    text_audit = audit(split.watch(_outcomes(source, "looking through the pairs", reporter=reporter)))
    source = replace(source, total=text_audit.n_rows)
    auditor = Auditor(evaluation_prompts=_evaluation_prompts(setup))
    with (
        store.JsonLines(into / "pairs.jsonl") as pairs,
        store.JsonLines(into / "train.jsonl") as train,
        store.JsonLines(into / "heldout.jsonl") as heldout,
        store.JsonLines(into / "rejected.jsonl") as rejected,
    ):
        evaluation = _evaluation_set(setup, template, limits, reporter=reporter)
        for pair, tokens in () if evaluation is None else evaluation.sound:
            split.hold(pair)
            pairs.append(pair.to_json())
            heldout.append(tokens.to_json())
        for pair, tokens in _sound_pairs(setup, source, auditor, template, limits, reporter=reporter):
            if pair.id in text_audit.dropped_ids:
                continue
            match split.side(pair):
                case "leaked":
                    rejected.append(_leak(pair, data.eval_label).to_json())
                    continue
                case "train":
                    train.append(tokens.to_json())
                case "heldout":
                    heldout.append(tokens.to_json())
            pairs.append(pair.to_json())
        report = _finish(auditor, source, template)
        n_held_apart = 0 if evaluation is None else evaluation.audit.n_kept
        if split.n_pairs != report.n_kept + n_held_apart:
            raise DataError(f"{data.label} changed while it was read", remedy="run the same command again")
        refuse_if_bad(report, max_rejected=data.max_rejected)
        for row in report.dropped_rows + (() if evaluation is None else evaluation.audit.dropped_rows):
            rejected.append(row.to_json())
    counts = split.counts(report.dropped_ids, sources=source.names)
    if not setup.objective.imitates:
        refuse_one_kind(report, counts, label=data.label)
    refuse_without_training(counts)
    store.write_json(
        into / "audit.json",
        report.to_json()
        | counts.to_json()
        | ({} if evaluation is None else {"evaluation_set": evaluation.audit.to_json()})
        | {"notes": [*report.remarks, *filter(None, [counts.warning])]}
        | {"template": template.digest, "template_sentence": template.sentence},
    )
    return [*report.lines(), template.sentence, *counts.lines()]


@dataclass(frozen=True, slots=True)
class PairsInMemory:
    """Sound pairs with their tokens, in the order of the source, and the account of the rest."""

    sound: list[tuple[Pair | Unpaired, TokenPair]]
    audit: Audit


@dataclass(frozen=True, slots=True)
class Preparation:
    """The tokens of each side, and the account of all rows."""

    train: list[TokenPair]
    heldout: list[TokenPair]
    audit: Audit
    counts: SplitCounts


def prepare(setup: RunSetup, *, reporter: Reporter, limit: int | None = None) -> Preparation:
    """Everything `main` does but writing. `limit` caps the rows of the sources (for an estimate).

    Raises DataError when too many rows are bad, or the training side is empty.
    """
    data, (template, limits) = setup.config.data, template_of(setup)
    source, split = _source(setup, limit=limit, reporter=reporter), Split(data.holdout, evaluation=data.eval_label)
    evaluation = _evaluation_set(setup, template, limits, reporter=reporter)
    sides: dict[Side, list[TokenPair]] = {side: [] for side in SIDES}
    for pair, tokens in () if evaluation is None else evaluation.sound:
        split.hold(pair)
        sides["heldout"].append(tokens)
    outcomes = source.outcomes
    source = replace(source, outcomes=lambda: split.watch(outcomes()))
    pairs = _in_memory(source, setup, template, limits, reporter=reporter)
    refuse_if_bad(pairs.audit, max_rejected=data.max_rejected)
    for pair, tokens in pairs.sound:
        sides[split.side(pair)].append(tokens)
    counts = split.counts(pairs.audit.dropped_ids, sources=source.names)
    if not setup.objective.imitates:
        refuse_one_kind(pairs.audit, counts, label=data.label)
    refuse_without_training(counts)
    return Preparation(sides["train"], sides["heldout"], pairs.audit, counts)


def _in_memory(
    source: PairSource, setup: RunSetup, template: ChatTemplate, limits: TokenLimits, *, reporter: Reporter
) -> PairsInMemory:
    auditor = Auditor(evaluation_prompts=_evaluation_prompts(setup))
    sound = list(_sound_pairs(setup, source, auditor, template, limits, reporter=reporter))
    report = _finish(auditor, source, template)
    # a later row contradicted some
    return PairsInMemory([row for row in sound if row[0].id not in report.dropped_ids], report)


def _finish(auditor: Auditor, source: PairSource, template: ChatTemplate) -> Audit:
    notes = [*source.notes(), *template.loss.sentences]
    return auditor.finish(decode=template.decode, notes=notes, n_read=source.n_read())


def _evaluation_set(
    setup: RunSetup, template: ChatTemplate, limits: TokenLimits, *, reporter: Reporter
) -> PairsInMemory | None:
    """The pairs of `data.eval`, held in memory; None without it. Raises DataError where too many of them are bad."""
    data = setup.config.data
    rows = evaluation_rows(data, offline=setup.config.offline)
    if rows is None:
        return None
    source = read_for(setup.objective, pair_source([rows], data, rule=_rule(setup)))
    pairs = _in_memory(source, setup, template, limits, reporter=reporter)
    refuse_bad_evaluation(pairs.audit, data)
    return pairs


def _leak(pair: Pair | Unpaired, evaluation: str | None) -> RowProblem:
    return RowProblem(pair.id, Reason.HELD_OUT, f"its prompt is one of {evaluation}")


def count(setup: RunSetup, *, limit: int | None = None) -> int:
    """Rows that `main` will read, or `prepare` with this `limit`. Pairs may be more, or fewer."""
    config = setup.config
    if config.data.source == windtunnel.NAME:
        return min(n for n in (limit, config.data.limit, config.windtunnel.pairs) if n is not None)
    sources = mixture(config.data, limit=limit, offline=config.offline, rule=_rule(setup))
    return sum(min(rows.size, rows.limit or rows.size) for rows in sources)


def _outcomes(source: PairSource, description: str, *, reporter: Reporter) -> Iterator[Outcome]:
    with reporter.track(description, total=source.total, unit="rows") as advance:
        for outcome in source.outcomes():
            advance(1)
            yield outcome


def _sound_pairs(
    setup: RunSetup,
    source: PairSource,
    auditor: Auditor,
    template: ChatTemplate,
    limits: TokenLimits,
    *,
    reporter: Reporter,
) -> Iterator[tuple[Pair | Unpaired, TokenPair]]:
    """Pairs in which the auditor finds nothing wrong, with their tokens; a later row may still contradict one."""
    on_scores = setup.objective.on_scores
    for outcome in _outcomes(source, "reading and tokenising pairs", reporter=reporter):
        pair = auditor.see(outcome)
        if pair is None:
            continue
        tokens = auditor.see_tokens(template.tokenize_pair(pair, **limits))
        if tokens is not None:
            yield pair, template.close(tokens) if on_scores else tokens


def _source(setup: RunSetup, *, limit: int | None, reporter: Reporter) -> PairSource:
    config = setup.config
    if config.data.source == windtunnel.NAME:
        n = min(n for n in (limit, config.data.limit, config.windtunnel.pairs) if n is not None)
        pairs = embedded_pairs(setup, n, reporter=reporter)
        return read_for(setup.objective, PairSource(lambda: iter(pairs), len(pairs)))
    rows = mixture(config.data, limit=limit, offline=config.offline, rule=_rule(setup))
    source = pair_source(rows, config.data, rule=_rule(setup))
    refuse_idle(config.data, source)
    return read_for(setup.objective, source)


def _rule(setup: RunSetup) -> Rule:
    """A response between best and worst would be good in one pair and bad in the next."""
    return "best_worst" if setup.objective.is_unpaired else "all"


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
