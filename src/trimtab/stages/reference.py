"""Reference: the frozen model's log-probabilities of every response, computed once and shared by every run.

What the global cache already has costs no forward pass, and then the model is not even loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab import store
from trimtab.engine import reference
from trimtab.engine.scoring import Scorer
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.runtime import memory_fit
from trimtab.runtime.model_loading import load_unaligned
from trimtab.runtime.run_identity import reference_key
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import stop_on_signal


def plan(setup: RunSetup, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """Rows and tokens of a reference pass that finds nothing in the cache; zeros where none is needed."""
    needed = setup.objective.needs_reference
    return {
        "needed": needed,
        "rows": 2 * len(pairs) if needed else 0,
        "tokens": sum(pair.n_tokens for pair in pairs) if needed else 0,
    }


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Fill the cache for the run's pairs and write `reference.json`, which says where the rows are."""
    folder, objective = setup.folder, setup.objective
    folder.require(folder.data, "prepare")
    if not objective.needs_reference:
        reporter.say(f"reference: {objective.name} needs none")
        return
    pairs = folder.train_pairs() + folder.heldout_pairs()
    key = reference_key(setup)
    held = reference.read(key, pairs)
    for shard, why in held.damaged_shards:
        reporter.say(f"reference: {why}; its rows are computed again")
        store.remove(shard)
    what = reference.missing(held, pairs)
    if what.digests:
        _compute(setup, key, what, pairs, reporter)
    else:
        reporter.say(f"reference: all {len(held.rows):,} rows are in the cache")
    told = {"key": key.to_json(), "digest": key.digest, "rows": 2 * len(pairs), "computed": len(what.digests)}
    store.write_json(folder.reference, told | {"folder": str(key.folder)})
    folder.finish("reference", key.digest, [folder.reference])


def _compute(
    setup: RunSetup,
    key: reference.ReferenceKey,
    what: reference.Missing,
    pairs: list[TokenPair],
    reporter: Reporter,
) -> None:
    store.require_space(key.folder, 2 * sum(4 * len(r) for group in what.groups for r in group.responses))
    setup.use_threads()
    pack_tokens = memory_fit.pack_tokens(setup, pairs=pairs)
    scorer = Scorer(load_unaligned(setup).model, packed=setup.config.engine.packed)
    with (
        stop_on_signal() as stop,
        reporter.track("reference", total=len(what.digests), unit="responses") as advance,
    ):
        done = reference.compute(
            what, key=key, scorer=scorer, pack_tokens=pack_tokens, advance=advance, should_stop=lambda: bool(stop)
        )
    if not done:
        raise stop.error("the reference rows computed so far are in the cache")
