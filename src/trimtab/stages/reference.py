"""Reference: the frozen model's log-probabilities of every response, computed once and shared by every run.

What the global cache already has costs no forward pass, and then the model is not even loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab import disk, store
from trimtab.engine import reference
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.runtime import memory_fit, precision
from trimtab.runtime.model_loading import load_reference
from trimtab.runtime.run_identity import reference_key
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import stop_on_signal
from trimtab.tokenizer_files import load_tokenizer


@dataclass(frozen=True, slots=True)
class ReferencePlan:
    """Distinct rows, and tokens, of a reference pass that finds nothing in the cache; zeros where none is needed."""

    needed: bool
    rows: int
    tokens: int


def plan(setup: RunSetup, pairs: Sequence[TokenPair]) -> ReferencePlan:
    """Of these pairs."""
    if not setup.objective.needs_reference:
        return ReferencePlan(needed=False, rows=0, tokens=0)
    rows = {(pair.prompt_ids, ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)}
    prompts = {pair.prompt_ids for pair in pairs}
    return ReferencePlan(needed=True, rows=len(rows), tokens=sum(map(len, prompts)) + sum(len(ids) for _, ids in rows))


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Fill the cache for the run's pairs and write `reference.json`, which says where the rows are."""
    folder = setup.folder
    folder.require(folder.data, "prepare")
    if not setup.objective.needs_reference:
        reporter.say(f"reference: {setup.objective.name} needs none")
        return
    if not setup.begins_at_reference:
        _require_same_tokens(setup)
    precision.settle(setup, reporter=reporter)
    pairs = folder.train_pairs() + folder.heldout_pairs()
    key = reference_key(setup)
    cache = reference.read(key, pairs)
    for shard, damage in cache.damaged_shards:
        reporter.say(f"reference: {damage}; its rows are computed again")
        store.remove(shard)
    missing = reference.missing(cache, pairs)
    if missing.digests:
        _compute(setup, key, missing, pairs, reporter)
    else:
        reporter.say(f"reference: all {len(cache.rows):,} rows are in the cache")
    counts = {"rows": 2 * len(pairs), "computed": len(missing.digests)}
    store.write_json(
        folder.reference, {"key": key.to_json(), "digest": key.digest, **counts, "folder": str(key.folder)}
    )
    folder.finish("reference", key.digest, [folder.reference])


def _require_same_tokens(setup: RunSetup) -> None:
    """Raises ConfigError where the reference would read the pairs' ids as other tokens."""
    folders = setup.model_folder, setup.reference_folder
    policy, reference_vocabulary = (load_tokenizer(str(folder), offline=True).get_vocab() for folder in folders)
    if policy != reference_vocabulary:
        raise ConfigError(
            f"model.reference {setup.config.model.reference} has another vocabulary than {setup.config.model.name}",
            remedy="name a reference of the same family, with the same tokenizer",
        )


def _compute(
    setup: RunSetup,
    key: reference.ReferenceKey,
    missing: reference.Missing,
    pairs: Sequence[TokenPair],
    reporter: Reporter,
) -> None:
    # 4 bytes a token; twice, for what names short rows
    disk.require_space(key.folder, 2 * sum(4 * len(r) for group in missing.groups for r in group.responses))
    setup.use_threads()
    pack_tokens = memory_fit.pack_tokens(setup, pairs=pairs)
    scorer = Scorer(load_reference(setup).model, packed=setup.config.engine.packed, mixed=setup.precision == "mixed")
    with (
        stop_on_signal() as stop,
        reporter.track("reference", total=len(missing.digests), unit="responses") as advance,
    ):
        is_complete = reference.compute(
            missing, key=key, scorer=scorer, pack_tokens=pack_tokens, advance=advance, should_stop=lambda: bool(stop)
        )
    if not is_complete:
        raise stop.error("the reference rows computed so far are in the cache")
