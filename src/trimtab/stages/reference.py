"""Reference: the frozen model's log-probabilities of every response, computed once and shared by every run.

What the global cache already has costs no forward pass, and then the model is not even loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab import objectives, store
from trimtab.config import Config
from trimtab.engine import reference
from trimtab.engine.scoring import Scorer
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.runtime import policy
from trimtab.runtime.folder import Folder
from trimtab.runtime.signals import stop_on_signal


def plan(config: Config, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """Rows and tokens of a reference pass that finds nothing in the cache; zeros where none is needed."""
    objective = objectives.make(config.objective.name, **config.objective.parameters())
    needed = objective.needs_reference
    return {
        "needed": needed,
        "rows": 2 * len(pairs) if needed else 0,
        "tokens": sum(pair.n_tokens for pair in pairs) if needed else 0,
    }


def main(config: Config, *, reporter: Reporter) -> None:
    """Fill the cache for the run's pairs and write `reference.json`, which says where the rows are."""
    folder = Folder.of(config)
    data = folder.require(folder.data, "prepare")
    objective = objectives.make(config.objective.name, **config.objective.parameters())
    if not objective.needs_reference:
        reporter.say(f"reference: {objective.name} needs none")
        return
    pairs = policy.read_pairs(data / "train.jsonl") + policy.read_pairs(data / "heldout.jsonl")
    key = policy.reference_key(config, folder)
    held = reference.read(key, pairs)
    for shard, why in held.damaged_shards:
        reporter.say(f"reference: {why}; its rows are computed again")
        store.remove(shard)
    what = reference.missing(held, pairs)
    if what.digests:
        _compute(config, key, what, pairs, reporter)
    else:
        reporter.say(f"reference: all {len(held.rows):,} rows are in the cache")
    told = {"key": key.to_json(), "digest": key.digest, "rows": 2 * len(pairs), "computed": len(what.digests)}
    store.write_json(folder.reference, told | {"folder": str(key.folder)})
    folder.finish("reference", key.digest, [folder.reference])


def _compute(
    config: Config,
    key: reference.ReferenceKey,
    what: reference.Missing,
    pairs: list[TokenPair],
    reporter: Reporter,
) -> None:
    store.require_space(key.folder, 2 * sum(4 * len(r) for group in what.groups for r in group.responses))
    policy.use_threads(config)
    pack_tokens = policy.pack_tokens(config, pairs=pairs)
    scorer = Scorer(policy.load(config).model, packed=config.engine.packed)
    with (
        stop_on_signal() as stop,
        reporter.track("reference", total=len(what.digests), unit="responses") as advance,
    ):
        done = reference.compute(
            what, key=key, scorer=scorer, pack_tokens=pack_tokens, advance=advance, should_stop=lambda: bool(stop)
        )
    if not done:
        raise stop.error("the reference rows computed so far are in the cache")
