"""Reference log-probabilities as an artefact: computed once, kept per token in fp32, shared by every run.

    $TRIMTAB_HOME/reference/<digest of the key>/
      key.json                what the numbers depend on, for people
      shard-<digest>/         rows computed together, committed whole
        rows.safetensors      digests [n, 32] uint8, offsets [n + 1] int64, logps [tokens] fp32 (nats)

The key names everything that changes the numbers and nothing that does not: no objective, learning rate or output
folder. A row is named by the digest of its token ids, so a data set that has grown computes only its new rows, and two
runs that share pairs share rows. A shard whose bytes do not verify is left out as a whole and its rows are computed
again; a row that is missing is an error, never a zero.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimtab import store
from trimtab.engine.finite import name_list
from trimtab.engine.packing import Group
from trimtab.errors import NumericsError, StoreError
from trimtab.records import TokenPair, digest

# raise it when a change to the engine changes log-probabilities by more than rounding
NUMERICS = 2
SHARD_SECONDS = 30.0  # what a kill can cost
WINDOW_PACKS = 32  # packs laid out at a time: enough to fill them well, and few enough to hold

_PREFIX = "shard-"


@dataclass(frozen=True, slots=True)
class ReferenceKey:
    """All that changes a reference log-probability besides the token ids. Digests are sha256 in hex.

    weights: the frozen model's files; adapter: a PEFT adapter that belongs to the reference, if any; tokenizer: its
    files and the chat template; truncation: (prompt, response) limits in tokens; dtype and device type of the forward
    pass; packed: whether packs were allowed (what the engine then does is decided by the weights and their self-check);
    quantized: the kind of 4-bit weights that the matrices were rounded to, if any.
    """

    weights: str
    adapter: str | None
    tokenizer: str
    truncation: tuple[int, int]
    dtype: str
    device: str
    packed: bool
    quantized: str | None = None
    numerics: int = NUMERICS

    @property
    def digest(self) -> str:
        return digest(self.to_json())

    @property
    def folder(self) -> Path:
        return store.home() / "reference" / self.digest

    def to_json(self) -> dict[str, Any]:
        tree = {**asdict(self), "truncation": list(self.truncation)}
        if self.quantized is None:  # rows computed before there was such a thing keep their name
            del tree["quantized"]
        return tree


def row_digest(prompt_ids: Sequence[int], response_ids: Sequence[int]) -> bytes:
    """32 bytes that name a row: sha256 of the prompt's length and all ids, as little-endian 64-bit words."""
    words = array("q", (len(prompt_ids), *prompt_ids, *response_ids))
    return sha256(words.tobytes()).digest()


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows held in memory. `damaged_shards`: the folder of each shard that did not verify and was left out, and why."""

    rows: dict[bytes, Tensor]
    damaged_shards: tuple[tuple[Path, str], ...] = ()

    def tokens(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> Tensor:
        """Per-token log-probabilities of one response, fp32 [len(response_ids)], nats. A missing row is an error; an
        absent response has none."""
        if not response_ids:
            return torch.zeros(0)
        row = self.rows.get(row_digest(prompt_ids, response_ids))
        if row is None or len(row) != len(response_ids):
            raise StoreError(
                "a reference log-probability is missing from the cache",
                remedy="run `trimtab reference` again; it computes what is missing",
            )
        return row

    def without(self, digests: Container[bytes]) -> Reference:
        """The rows that these do not name."""
        return replace(self, rows={name: row for name, row in self.rows.items() if name not in digests})

    def of_pairs(self, pairs: Iterable[TokenPair]) -> list[Tensor]:
        """Per-token log-probabilities of the responses, chosen of pair p at 2p and rejected at 2p + 1."""
        return [self.tokens(pair.prompt_ids, ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]

    def require(self, pairs: Iterable[TokenPair]) -> None:
        """Raises StoreError naming the pairs of which a row is not there, and what was damaged."""
        if absent := list(dict.fromkeys(missing(self, pairs).ids)):
            reason = "".join(f"; {reason}" for _, reason in self.damaged_shards[:1])
            raise StoreError(
                f"reference log-probabilities of {len(absent)} pairs are missing from the cache: "
                f"{name_list(absent)}{reason}",
                remedy="run `trimtab reference` again; it computes what is missing",
            )


@dataclass(frozen=True, slots=True)
class Missing:
    """Rows to compute: groups whose keys index `digests` and `ids`, the ids of the pairs that they came from."""

    groups: tuple[Group, ...]
    digests: tuple[bytes, ...]
    ids: tuple[str, ...]


def missing(reference: Reference, pairs: Iterable[TokenPair]) -> Missing:
    """What `reference` lacks of `pairs`, each row once."""
    groups: list[Group] = []
    rows: dict[bytes, str] = {}
    for pair in pairs:
        new: dict[bytes, tuple[int, ...]] = {}
        for _, ids in pair.sides:
            name = row_digest(pair.prompt_ids, ids)
            if name not in reference.rows and name not in rows:
                new[name] = ids
        if new:
            keys = tuple(range(len(rows), len(rows) + len(new)))
            groups.append(Group(pair.prompt_ids, tuple(new.values()), keys))
            rows |= dict.fromkeys(new, pair.id)
    return Missing(tuple(groups), tuple(rows), tuple(rows.values()))


def read(key: ReferenceKey, pairs: Iterable[TokenPair]) -> Reference:
    """The rows of `pairs` that the cache has. Every byte is verified; what does not verify counts as not there."""
    pair_ids = {row_digest(p.prompt_ids, ids): p.id for p in pairs for _, ids in p.sides}
    rows: dict[bytes, Tensor] = {}
    damaged_shards: list[tuple[Path, str]] = []
    for shard in _shards(key):
        try:
            rows |= _read_shard(shard, pair_ids)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            damaged_shards.append((shard, str(error)))
    return Reference(rows, tuple(damaged_shards))


class RowScorer(Protocol):
    """What computes log-probabilities: `engine.scoring.Scorer`."""

    def by_key(self, groups: Sequence[Group], *, pack_tokens: int) -> Iterator[tuple[int, Tensor]]:
        """(key, per-token log-probabilities, fp32 on the CPU, nats) of every response, without gradient."""
        ...


def compute(
    absent_rows: Missing,
    *,
    key: ReferenceKey,
    scorer: RowScorer,
    pack_tokens: int,
    advance: Callable[[int], None] = lambda _rows: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Compute `absent_rows` and append them to the cache, a shard every half minute; False when `should_stop` said so.

    `advance` is told of each row. Raises NumericsError naming the pair when a number is not finite; such a row is
    never stored.
    """
    key.folder.mkdir(parents=True, exist_ok=True)
    store.write_json(key.folder / "key.json", key.to_json())
    unsaved: dict[bytes, Tensor] = {}
    since = time.monotonic()
    try:
        # what shares a prompt, or its beginning, is in one window
        groups = sorted(absent_rows.groups, key=lambda group: group.prompt_ids)
        for window in _windows(groups, WINDOW_PACKS * pack_tokens):
            for index, row in scorer.by_key(window, pack_tokens=pack_tokens):
                if should_stop():
                    return False
                if not torch.isfinite(row).all():
                    pair_id = absent_rows.ids[index]
                    raise NumericsError(
                        f"the reference model gives a log-probability that is not finite for pair {pair_id}",
                        remedy="try --engine.dtype float32; if it stays, the model's weights are damaged",
                    )
                unsaved[absent_rows.digests[index]] = row
                advance(1)
                if time.monotonic() - since > SHARD_SECONDS:
                    _append(key, unsaved)
                    unsaved, since = {}, time.monotonic()
    finally:
        if unsaved:
            _append(key, unsaved)
    return True


def _windows(groups: Sequence[Group], tokens: int) -> Iterator[list[Group]]:
    """Enough groups at a time to fill packs well, and few enough that a large data set is never laid out whole."""
    window: list[Group] = []
    n_tokens = 0
    for group in groups:
        window.append(group)
        n_tokens += group.n_tokens
        if n_tokens >= tokens:
            yield window
            window, n_tokens = [], 0
    if window:
        yield window


def _shards(key: ReferenceKey) -> list[Path]:
    return sorted(folder for folder in key.folder.glob(f"{_PREFIX}*") if folder.is_dir())


def _append(key: ReferenceKey, rows: dict[bytes, Tensor]) -> None:
    lengths = torch.tensor([0, *(len(row) for row in rows.values())])
    tensors = {
        "digests": torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(len(rows), 32),
        "offsets": lengths.cumsum(0),
        "logps": torch.cat(list(rows.values())),
    }
    name = _PREFIX + sha256(b"".join(rows)).hexdigest()[:16]
    store.commit_folder(
        key.folder / name,
        lambda folder: save_file(tensors, folder / "rows.safetensors"),
        needs=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
    )


def _read_shard(shard: Path, pair_ids: Mapping[bytes, str]) -> dict[bytes, Tensor]:
    """The rows that are wanted (digest → pair). A shard with a single row that is not finite is not trusted at all."""
    if problems := store.damage(shard):
        raise ValueError(problems[0])
    with safe_open(shard / "rows.safetensors", framework="pt") as file:
        # a copy: what is read is mapped from the file, and would change or vanish with it in the middle of a run
        digests, offsets, logps = (file.get_tensor(name).clone() for name in ("digests", "offsets", "logps"))
    if len(offsets) != len(digests) + 1 or int(offsets[-1]) != len(logps):
        raise ValueError(f"{shard.name}/rows.safetensors: not a shard")
    table, starts = digests.numpy().tobytes(), offsets.tolist()
    names = (table[32 * i : 32 * i + 32] for i in range(len(digests)))
    rows = {name: logps[starts[i] : starts[i + 1]] for i, name in enumerate(names)}
    if not logps.isfinite().all():
        bad = [name for name, row in rows.items() if not row.isfinite().all()]
        pairs = list(dict.fromkeys(pair_ids.get(name, "a pair of another run") for name in bad))
        raise ValueError(f"{shard.name}/rows.safetensors: log-probabilities are not finite for {name_list(pairs)}")
    return {name: row for name, row in rows.items() if name in pair_ids}
