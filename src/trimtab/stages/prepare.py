"""Prepare: read the pairs, audit every row, tokenise what is sound, and set some prompts aside.

Nothing is dropped in silence: `rejected.jsonl` holds each dropped row's name and reason, `audit.json` the counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab import store, windtunnel
from trimtab.config import DataSection, GenerateSection, config_digest
from trimtab.data.audit import Audit, Auditor, audit, normalise_prompt
from trimtab.data.chat import ChatTemplate
from trimtab.data.formats import detect_format
from trimtab.data.loading import load_chat_template
from trimtab.data.problems import RowProblem
from trimtab.data.sources import read_rows
from trimtab.engine.describe import read_config, window
from trimtab.errors import ConfigError, DataError
from trimtab.progress import Reporter
from trimtab.records import Pair, TokenPair, digest
from trimtab.runtime.answering import answer_turns
from trimtab.runtime.run_setup import RunSetup

WINDTUNNEL_ANSWER_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """Kept pairs with their tokens, in the order of the source, and the account of the rest."""

    pairs: list[Pair]
    tokens: list[TokenPair]
    audit: Audit


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows as pairs or problems, from the first again each time; `total` is their number where that is known."""

    outcomes: Callable[[], Iterator[Pair | RowProblem]]
    total: int | None
    notes: Callable[[], list[str]] = list
    """What was left out of the rows so far, a sentence each."""


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Write `data/`: pairs.jsonl, train.jsonl, heldout.jsonl, audit.json, rejected.jsonl."""
    folder, made_from = setup.folder, inputs(setup)
    if folder.is_done("prepare", made_from):
        reporter.say("prepare: the pairs are prepared already")
        return
    sentences: list[str] = []
    store.commit_folder(folder.data, lambda into: sentences.extend(_write(into, setup, reporter=reporter)))
    folder.finish("prepare", made_from, [folder.data])
    for sentence in sentences:
        reporter.say(f"prepare: {sentence}")


def _write(into: Path, setup: RunSetup, *, reporter: Reporter) -> list[str]:
    """Fill the data folder and say what is in it. Rows go to disk as they are tokenised; none is held.

    A contradiction shows only at its second row, so all texts are looked through once before.
    """
    template, limits = template_of(setup)
    source = _source(setup, limit=None, reporter=reporter)
    on_text = audit(_passing(source, "looking through the pairs", reporter=reporter))
    source = replace(source, total=on_text.n_rows)
    auditor = Auditor(evaluation_prompts=_evaluation_prompts(setup))
    n_train = n_heldout = 0
    with (
        store.JsonLines(into / "pairs.jsonl") as pairs,
        store.JsonLines(into / "train.jsonl") as train,
        store.JsonLines(into / "heldout.jsonl") as heldout,
    ):
        sound = _sound(source, auditor, lambda pair: template.tokenize_pair(pair, **limits), reporter=reporter)
        for pair, tokens in sound:
            if pair.id in on_text.dropped_ids:
                continue
            pairs.append(pair.to_json())
            held_out = is_heldout(pair, share=setup.config.data.holdout)
            (heldout if held_out else train).append(tokens.to_json())
            n_heldout, n_train = n_heldout + held_out, n_train + (not held_out)
    found = auditor.finish(decode=template.decode, notes=[*source.notes(), *template.loss.sentences])
    if n_train + n_heldout != found.n_kept:
        raise DataError(f"{setup.config.data.source} changed while it was read", remedy="run the same command again")
    refuse_if_bad(found, max_rejected=setup.config.data.max_rejected)
    refuse_without_training(n_train, n_heldout)
    store.write_jsonl(into / "rejected.jsonl", (row.to_json() for row in found.dropped))
    told = {"train": n_train, "heldout": n_heldout, "template": template.digest, "template_sentence": template.sentence}
    store.write_json(into / "audit.json", found.to_json() | told)
    return [
        *found.lines(),
        template.sentence,
        f"{n_train} pairs to train on, {n_heldout} held out",
    ]


def prepare(setup: RunSetup, *, reporter: Reporter, limit: int | None = None) -> Prepared:
    """Everything `main` does but writing, in memory. `limit` caps the rows looked at (for an estimate)."""
    template, limits = template_of(setup)
    source = _source(setup, limit=limit, reporter=reporter)
    auditor = Auditor(evaluation_prompts=_evaluation_prompts(setup))
    kept = list(_sound(source, auditor, lambda pair: template.tokenize_pair(pair, **limits), reporter=reporter))
    found = auditor.finish(decode=template.decode, notes=[*source.notes(), *template.loss.sentences])
    lost = found.dropped_ids
    kept = [both for both in kept if both[0].id not in lost]
    return Prepared([pair for pair, _ in kept], [tokens for _, tokens in kept], found)


def refuse_if_bad(audit: Audit, *, max_rejected: float) -> None:
    """Stop before training on a data set of which more than `data.max_rejected` is unusable."""
    if not audit.n_kept:
        raise DataError(
            f"none of the {audit.n_rows} rows is a usable pair\n" + "\n".join(audit.lines()[1:]),
            remedy="`trimtab audit DATA --model M --json` names every row",
        )
    if audit.dropped_share > max_rejected:
        raise DataError(
            f"{len(audit.dropped)} of {audit.n_rows} rows ({audit.dropped_share:.1%}) are bad, "
            f"more than data.max_rejected = {max_rejected:.0%}\n" + "\n".join(audit.lines()[1:]),
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


def inputs(setup: RunSetup) -> str:
    """Digest of what `main` reads: the rows, the tokenizer, the keys of `data`, the benchmark's prompts."""
    config, model = setup.config, setup.model_identity
    asked = setup.benchmark.digest if setup.benchmark_name else None
    keys: list[Any] = [config_digest(config, "data"), asked, model.tokenizer]
    if config.data.source == windtunnel.NAME:
        keys += [config_digest(config, "windtunnel"), model.weights]
    else:
        keys.append(_rows(setup, config.data.limit).digest)
    return digest(keys)


def _rows(setup: RunSetup, limit: int | None) -> Any:
    config = setup.config
    return read_rows(config.data.source, split=split_name(config.data), limit=limit, offline=config.offline)


def split_name(data: DataSection) -> str | None:
    """The split to read; None for a file, which has none."""
    if not Path(data.source).is_file():
        return data.split
    if data.split != "train":
        raise ConfigError(f"{data.source} is one file: it has no split {data.split!r}", remedy="leave data.split out")
    return None


def _passing(source: _Source, what: str, *, reporter: Reporter) -> Iterator[Pair | RowProblem]:
    with reporter.track(what, total=source.total, unit="rows") as advance:
        for outcome in source.outcomes():
            advance(1)
            yield outcome


def _sound(
    source: _Source, auditor: Auditor, tokenize: Callable[[Pair], TokenPair | RowProblem], *, reporter: Reporter
) -> Iterator[tuple[Pair, TokenPair]]:
    """Pairs in which the auditor finds nothing wrong, with their tokens; a later row may still contradict one."""
    for outcome in _passing(source, "reading and tokenising pairs", reporter=reporter):
        pair = auditor.see(outcome)
        tokens = None if pair is None else auditor.see_tokens(tokenize(pair))
        if pair is not None and tokens is not None:
            yield pair, tokens


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
        wanted = max(64, int(1.6 * (n - len(pairs))))
        seed = 1000 * world.seed + 2 * part
        tasks = windtunnel.tasks(wanted, seed=seed, split="pairs")
        sides = [_own_answers(setup, tasks, seed=seed + side, side=side, reporter=reporter) for side in (0, 1)]
        labelled = windtunnel.label(
            tasks,
            sides[0],
            sides[1],
            length_bias=world.length_bias,
            label_noise=world.label_noise,
            seed=seed,
        )
        known = {pair.id for pair in pairs}
        pairs += [pair for pair in labelled.pairs if pair.id not in known]
        if len(pairs) >= n:
            return pairs[:n]
    raise DataError(f"the embedded world gave {len(pairs)} pairs of {n} asked for", remedy="lower windtunnel.pairs")


def _own_answers(
    setup: RunSetup, tasks: Sequence[windtunnel.Task], *, seed: int, side: int, reporter: Reporter
) -> list[str]:
    """The model's own answers, by the world's dials and not by those of the benchmark."""
    temperature = setup.config.windtunnel.temperature
    decoding = GenerateSection(max_new_tokens=WINDTUNNEL_ANSWER_TOKENS, temperature=temperature, seed=seed)
    said = answer_turns(
        setup.model_folder,
        [(task.prompt,) for task in tasks],
        temperatures=[temperature] * len(tasks),
        decoding=decoding,
        setup=setup,
        reporter=reporter,
        what=f"sampling answers to be labelled ({side + 1} of 2)",
    )
    return [turns[0].text for turns in said]


def template_of(setup: RunSetup) -> tuple[ChatTemplate, dict[str, int]]:
    """The tokenizer's template, and the limits (tokens) within which it puts a pair."""
    config, folder = setup.config, setup.model_folder
    described = read_config(folder, trust_remote_code=config.model.trust_remote_code)
    asked = config.data.max_prompt_tokens + config.data.max_response_tokens
    limits = {
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "max_response_tokens": config.data.max_response_tokens,
        "max_tokens": min(asked, window(described) or asked),
        "min_response_tokens": config.data.min_response_tokens,
    }
    rows: int | None = getattr(described, "vocab_size", None)
    return load_chat_template(str(folder), offline=True, embedding_rows=rows), limits


def _evaluation_prompts(setup: RunSetup) -> frozenset[str] | None:
    if setup.benchmark_name is None:
        return None
    return frozenset(normalise_prompt(prompt.instruction) for prompt in setup.benchmark.prompts)
