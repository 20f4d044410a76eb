"""Reference: the frozen model's log-probabilities of every response, computed once and shared by every run.

What the global cache already has costs no forward pass, and then the model is not even loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab import disk, store
from trimtab.data.loading import tokenizer_of
from trimtab.engine import kl, models, reference
from trimtab.engine.packing import Group
from trimtab.engine.processes import Processes, deal
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.runtime import memory_fit, precision
from trimtab.runtime.model_loading import load_reference
from trimtab.runtime.run_identity import reference_key
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import stop_on_signal


@dataclass(frozen=True, slots=True)
class ReferencePlan:
    """Distinct rows, and tokens, of a reference pass that finds nothing in the cache; zeros where none is needed."""

    needed: bool
    rows: int
    tokens: int


def plan(setup: RunSetup, pairs: Sequence[TokenPair]) -> ReferencePlan:
    """Of these pairs, and of the mismatched rows of an objective with a KL term."""
    if not setup.objective.needs_reference:
        return ReferencePlan(needed=False, rows=0, tokens=0)
    pairs = [*pairs, *kl.rows_for(setup.objective, pairs)]
    rows = {(pair.prompt_ids, ids) for pair in pairs for _, ids in pair.sides}
    prompts = {pair.prompt_ids for pair in pairs}
    return ReferencePlan(needed=True, rows=len(rows), tokens=sum(map(len, prompts)) + sum(len(ids) for _, ids in rows))


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Fill the cache for the run's pairs and write `reference.json`, which says where the rows are."""
    folder = setup.folder
    folder.require(folder.data, "prepare")
    if not setup.objective.needs_reference:
        reporter.say(f"reference: {setup.objective.name} needs none")
        return
    require(setup)
    processes = setup.processes
    processes.first(lambda: precision.settle(setup.apart, reporter=reporter))
    sets = folder.train_pairs(), folder.heldout_pairs()
    pairs = [row for rows in sets for row in (*rows, *kl.rows_for(setup.objective, rows))]
    key = reference_key(setup)
    cache = reference.read(key, pairs)
    for shard, damage in cache.damaged_shards if processes.is_first else ():
        reporter.say(f"reference: {damage}; its rows are computed again")
        store.remove(shard)
    missing = reference.missing(cache, pairs)
    if not missing.digests:
        reporter.say(f"reference: all {len(cache.rows):,} rows are in the cache")
    if not processes.alone:  # what one of them misses all deal out alike, whatever another job adds meanwhile
        absent = frozenset().union(*processes.gather(missing.digests))
        missing = reference.missing(cache.without(absent), pairs)
    if missing.digests:
        _compute(setup, key, missing, pairs, reporter)
    if processes.is_first:
        counts = {"rows": sum(len(pair.sides) for pair in pairs), "computed": len(missing.digests)}
        store.write_json(
            folder.reference, {"key": key.to_json(), "digest": key.digest, **counts, "folder": str(key.folder)}
        )
        folder.finish("reference", key.digest, [folder.reference])
    processes.follow()  # what comes next asks for the file


def require(setup: RunSetup) -> None:
    """Before any work: raises ModelError where a reference of its own cannot be had, ConfigError where it would read
    the pairs' ids as other tokens."""
    if setup.begins_at_reference:
        return
    models.inspect_folder(setup.reference_folder)
    folders = setup.model_folder, setup.reference_folder
    policy, reference_vocabulary = (tokenizer_of(str(folder), offline=True).get_vocab() for folder in folders)
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
    """Each process computes and keeps rows that no other does."""
    processes = setup.processes
    # 4 bytes a token; twice, for what names short rows
    disk.require_space(key.folder, 2 * sum(4 * len(r) for group in missing.groups for r in group.responses))
    setup.use_threads()
    pack_tokens = memory_fit.pack_tokens(setup, pairs=pairs)
    share = _share(missing.groups, processes)
    scorer = Scorer(
        load_reference(setup).model,
        packed=setup.config.engine.packed,
        mixed=setup.precision == "mixed",
        half=setup.precision == "float16",
    )
    with (
        stop_on_signal(processes) as stop,
        reporter.track("reference", total=sum(len(group.keys) for group in share), unit="responses") as advance,
    ):

        def compute() -> int | None:
            reference.compute(
                replace(missing, groups=tuple(share)),
                key=key,
                scorer=scorer,
                pack_tokens=pack_tokens,
                advance=advance,
                should_stop=lambda: stop.signal is not None,
            )
            return stop.signal

        signals = processes.together(compute)
        stop.agree(signals)
    if any(signals):
        raise stop.error("the reference rows computed so far are in the cache")


def _share(groups: Sequence[Group], processes: Processes) -> list[Group]:
    """What this process computes of them: prompts whole."""
    prompts: dict[tuple[int, ...], list[Group]] = {}
    for group in groups:
        prompts.setdefault(group.prompt_ids, []).append(group)
    families = list(prompts.values())
    own = deal([sum(group.n_tokens for group in family) for family in families], processes.size)[processes.rank]
    return [group for number in own for group in families[number]]
