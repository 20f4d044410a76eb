"""Prepare: read the pairs, audit every row, tokenise what is sound, and set some prompts aside.

Nothing is dropped in silence: `rejected.jsonl` holds each dropped row's name and reason, `audit.json` the counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import store, windtunnel
from trimtab.config import Config, DataSection, GenerateSection, config_digest
from trimtab.data.audit import Audit, Auditor, normalise_prompt
from trimtab.data.chat import ChatTemplate
from trimtab.data.formats import detect_format
from trimtab.data.loading import load_chat_template
from trimtab.data.problems import RowProblem
from trimtab.data.sources import read_rows
from trimtab.engine import identity
from trimtab.engine.describe import read_config, window
from trimtab.errors import ConfigError, DataError
from trimtab.progress import Reporter
from trimtab.records import Message, Pair, TokenPair, digest
from trimtab.stages.answering import answer
from trimtab.stages.folder import Folder
from trimtab.stages.inputs import EMBEDDED, benchmark, benchmark_name, model_folder

WINDTUNNEL_ANSWER_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """Kept pairs with their tokens, in the order of the source, and the account of the rest."""

    pairs: list[Pair]
    tokens: list[TokenPair]
    audit: Audit
    template: ChatTemplate


def main(config: Config, *, reporter: Reporter) -> None:
    """Write `data/`: pairs.jsonl, train.jsonl, heldout.jsonl, audit.json, rejected.jsonl."""
    folder = Folder.of(config)
    inputs = _inputs(config)
    if folder.is_done("prepare", inputs):
        reporter.say("prepare: the pairs are prepared already")
        return
    prepared = prepare(config, reporter=reporter)
    refuse_if_bad(prepared.audit, config)
    train, heldout = split(prepared, share=config.data.holdout)

    def write(into: Path) -> None:
        store.write_jsonl(into / "pairs.jsonl", (pair.to_json() for pair in prepared.pairs))
        store.write_jsonl(into / "train.jsonl", (pair.to_json() for pair in train))
        store.write_jsonl(into / "heldout.jsonl", (pair.to_json() for pair in heldout))
        store.write_jsonl(into / "rejected.jsonl", (row.to_json() for row in prepared.audit.dropped))
        told = prepared.audit.to_json() | {
            "train": len(train),
            "heldout": len(heldout),
            "template": prepared.template.digest,
            "template_sentence": prepared.template.sentence,
        }
        store.write_json(into / "audit.json", told)

    store.commit_folder(folder.data, write)
    folder.finish("prepare", inputs, [folder.data])
    for line in (*prepared.audit.lines(), prepared.template.sentence):
        reporter.say(f"prepare: {line}")
    reporter.say(f"prepare: {len(train)} pairs to train on, {len(heldout)} held out")


def prepare(config: Config, *, reporter: Reporter, limit: int | None = None) -> Prepared:
    """Everything `main` does but writing. `limit` caps the rows looked at (for an estimate)."""
    template, limits = template_of(config)
    auditor = Auditor(evaluation_prompts=_evaluation_prompts(config))
    pairs: list[Pair] = []
    tokens: list[TokenPair] = []
    outcomes, total = _outcomes(config, limit=limit, reporter=reporter)
    with reporter.track("reading and tokenising pairs", total=total, unit="rows") as advance:
        for outcome in outcomes:
            advance(1)
            pair = auditor.see(outcome)
            if pair is None:
                continue
            seen = auditor.see_tokens(template.tokenize_pair(pair, **limits))
            if seen is not None:
                pairs.append(pair)
                tokens.append(seen)
    audit = auditor.finish(decode=template.decode)
    lost = audit.dropped_ids
    return Prepared(
        [pair for pair in pairs if pair.id not in lost],
        [pair for pair in tokens if pair.id not in lost],
        audit,
        template,
    )


def refuse_if_bad(audit: Audit, config: Config) -> None:
    """Stop before training on a data set of which more than `data.max_rejected` is unusable."""
    if not audit.n_kept:
        raise DataError(
            f"none of the {audit.n_rows} rows is a usable pair\n" + "\n".join(audit.lines()[1:]),
            remedy="`trimtab audit DATA --model M --json` names every row",
        )
    if audit.dropped_share > config.data.max_rejected:
        raise DataError(
            f"{len(audit.dropped)} of {audit.n_rows} rows ({audit.dropped_share:.1%}) are bad, "
            f"more than data.max_rejected = {config.data.max_rejected:.0%}\n" + "\n".join(audit.lines()[1:]),
            remedy="mend the rows (`trimtab audit DATA --model M --json` names them), or allow more with "
            f"--data.max-rejected {math.ceil(100 * audit.dropped_share) / 100:g}",
        )


def split(prepared: Prepared, *, share: float) -> tuple[list[TokenPair], list[TokenPair]]:
    """(train, held out): a prompt goes to one side with all of its pairs, decided by its text and nothing else.

    Raises DataError when the training side is empty.
    """
    train: list[TokenPair] = []
    heldout: list[TokenPair] = []
    for pair, tokens in zip(prepared.pairs, prepared.tokens, strict=True):
        lot = int(digest([message.to_json() for message in pair.prompt])[:8], 16) / 2**32
        (heldout if lot < share else train).append(tokens)
    if not train:
        raise DataError(
            f"no pair is left to train on: all {len(heldout)} are held out",
            remedy="lower data.holdout or bring more prompts",
        )
    return train, heldout


def count(config: Config) -> int:
    """Rows that `main` will read."""
    if config.data.source == EMBEDDED:
        return min(config.windtunnel.pairs, config.data.limit or config.windtunnel.pairs)
    rows = _rows(config, config.data.limit)
    return sum(1 for _ in rows) if rows.total is None else int(rows.total)


def _inputs(config: Config) -> str:
    model = identity.identify(str(model_folder(config)))
    asked = benchmark(config).digest if benchmark_name(config) else None
    keys: list[Any] = [config_digest(config, "data"), asked, model.tokenizer]
    if config.data.source == EMBEDDED:
        keys += [config_digest(config, "windtunnel"), model.weights]
    else:
        keys.append(_rows(config, config.data.limit).digest)
    return digest(keys)


def _rows(config: Config, limit: int | None) -> Any:
    return read_rows(config.data.source, split=split_name(config.data), limit=limit, offline=config.offline)


def split_name(data: DataSection) -> str | None:
    """The split to read; None for a file, which has none."""
    if not Path(data.source).is_file():
        return data.split
    if data.split != "train":
        raise ConfigError(f"{data.source} is one file: it has no split {data.split!r}", remedy="leave data.split out")
    return None


def _outcomes(
    config: Config, *, limit: int | None, reporter: Reporter
) -> tuple[Iterator[Pair | RowProblem], int | None]:
    """Rows as pairs or problems, and how many there will be when that is known."""
    limit = min((n for n in (limit, config.data.limit) if n is not None), default=None)
    if config.data.source == EMBEDDED:
        pairs = embedded_pairs(config, limit or config.windtunnel.pairs, reporter=reporter)
        return iter(pairs), len(pairs)
    rows = _rows(config, limit)
    shape = detect_format(rows.head, source=config.data.source, columns=config.data.columns)
    return (shape.to_pair(row_id, row) for row_id, row in rows), rows.total


def embedded_pairs(config: Config, n: int, *, reporter: Reporter) -> list[Pair]:
    """The embedded world's pairs: two answers of the model itself to each task, labelled with the world's dials."""
    world = config.windtunnel
    decoding = GenerateSection(max_new_tokens=WINDTUNNEL_ANSWER_TOKENS, temperature=world.temperature)
    pairs: list[Pair] = []
    for part in range(8):  # ties and twins give no pair, so more tasks are drawn until there are enough
        wanted = max(64, int(1.6 * (n - len(pairs))))
        seed = 1000 * world.seed + 2 * part
        tasks = windtunnel.tasks(wanted, seed=seed, split="pairs")
        prompts = [(Message("user", task.prompt),) for task in tasks]
        sides = [
            answer(
                model_folder(config),
                prompts,
                config=config,
                decoding=decoding,
                seed=seed + side,
                reporter=reporter,
                what=f"sampling answers to be labelled ({side + 1} of 2)",
            )
            for side in (0, 1)
        ]
        labelled = windtunnel.label(
            tasks,
            [one.text for one in sides[0]],
            [one.text for one in sides[1]],
            length_bias=world.length_bias,
            label_noise=world.label_noise,
            seed=seed,
        )
        known = {pair.id for pair in pairs}
        pairs += [pair for pair in labelled.pairs if pair.id not in known]
        if len(pairs) >= n:
            return pairs[:n]
    raise DataError(f"the embedded world gave {len(pairs)} pairs of {n} asked for", remedy="lower windtunnel.pairs")


def template_of(config: Config) -> tuple[ChatTemplate, dict[str, int]]:
    """The tokenizer's template, and the limits (tokens) within which it puts a pair."""
    folder = model_folder(config)
    described = read_config(folder, trust_remote_code=config.model.trust_remote_code)
    asked = config.data.max_prompt_tokens + config.data.max_response_tokens
    limits = {
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "max_response_tokens": config.data.max_response_tokens,
        "max_tokens": min(asked, window(described) or asked),
        "min_response_tokens": config.data.min_response_tokens,
    }
    return load_chat_template(str(folder), offline=True), limits


def _evaluation_prompts(config: Config) -> frozenset[str] | None:
    if benchmark_name(config) is None:
        return None
    return frozenset(normalise_prompt(prompt.instruction) for prompt in benchmark(config).prompts)
