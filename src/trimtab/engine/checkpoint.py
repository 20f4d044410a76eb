"""What a killed run needs to go on as if nothing had happened, and nothing else.

    step-XXXXXXXX/
      weights.safetensors     the trainable parameters, by name
      optimizer.safetensors   moments, step counts and fp32 copies, by parameter name
      rng.safetensors         torch's generators (they matter where dropout is on)
      state.json              step, identity, and what the stage wants back

The order of the data and the schedule are pure functions of the step and need no state. Folders are committed whole
(`store.commit_folder`), the newest whose manifest verifies wins, and a folder made from other inputs is refused by the
name of the key that differs. No pickle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimtab import store
from trimtab.engine import finite
from trimtab.engine.optim import AdamW
from trimtab.errors import ConfigError, StoreError

PREFIX = "step-"
FORMAT = 1  # raise when what stands in a checkpoint changes


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that was found: `step` updates are in it; `extra` is what `save` was given.

    `changed`: for each key that is not what it was, and was let pass, what it was and is.
    """

    folder: Path
    step: int
    extra: dict[str, Any]
    changed: tuple[str, ...] = ()


def bytes_needed(optimizer: AdamW) -> int:
    """Upper bound of one checkpoint on disk."""
    return size(
        weights_bytes=sum(p.numel() * p.element_size() for p in optimizer.parameters.values()),
        values=sum(p.numel() for p in optimizer.parameters.values()),
        fp32_copies=sum(optimizer.parameters[name].numel() for name in optimizer.masters),
    )


def size(*, weights_bytes: int, values: int, fp32_copies: int) -> int:
    """Bytes, at most: the weights, two fp32 moments of each value, the fp32 copies where there are any, the rest."""
    return weights_bytes + 4 * (2 * values + fp32_copies) + 65536


def save(
    parent: Path,
    *,
    step: int,
    optimizer: AdamW,
    identity: Mapping[str, Any],
    extra: Mapping[str, Any],
    keep: int = 2,
    writes: bool = True,
) -> Path:
    """Commit the state after `step` updates to `parent/step-XXXXXXXX`, then prune to the newest `keep` valid ones.

    `identity` names, key by key, what the trajectory depends on; `extra` is small JSON handed back by `resume`.
    `writes`: whether it is this process that does; all take part. Raises NumericsError, and commits nothing, where a
    weight or a moment is not finite.
    """
    target, moments = parent / f"{PREFIX}{step:08d}", optimizer.state()
    if not writes:
        return target
    finite.refuse(
        [*optimizer.parameters.items(), *moments.items()],
        subject=f"step {step}: what its update left",
        remedy="The checkpoints from before are whole. Lower train.learning_rate or lengthen train.warmup.",
    )

    def write(folder: Path) -> None:
        save_file(_plain(optimizer.parameters), folder / "weights.safetensors")
        save_file(_plain(moments), folder / "optimizer.safetensors")
        save_file(_generators(), folder / "rng.safetensors")
        state = {"format": FORMAT, "step": step, "identity": dict(identity), "extra": dict(extra)}
        store.write_json(folder / "state.json", state)

    folder = store.commit_folder(target, write, needs=bytes_needed(optimizer))
    store.prune(parent, PREFIX, keep=keep, valid_name=folder.name)
    return folder


def keep_newest(parent: Path) -> None:
    """Delete all but the newest checkpoint that verifies; nothing where none does."""
    newest, _ = store.newest_valid(parent, PREFIX)
    for folder in parent.glob(f"{PREFIX}*"):
        if newest is not None and folder != newest:
            store.remove(folder)


def find(
    parent: Path, *, identity: Mapping[str, Any], course: Collection[str] = (), anyway: bool = False
) -> tuple[SavedCheckpoint | None, list[str]]:
    """The newest valid checkpoint under `parent` and one line for each damaged newer one.

    Raises ConfigError, naming the keys, when it was made from another configuration or other data; with `anyway`, only
    when keys outside `course` changed.
    """
    folder, problems = store.newest_valid(parent, PREFIX)
    if folder is None:
        return None, problems
    state = store.read_json(folder / "state.json")
    if state.get("format") != FORMAT:
        raise StoreError(
            f"{folder} was written by another version of trimtab",
            remedy="finish the run with that version, or start anew with another --out",
        )
    changed = _differences(state["identity"], identity)
    refusals = {key: sentence for key, sentence in changed.items() if not (anyway and key in course)}
    if refusals:
        hint = ", use --resume-anyway to go on as it is" if refusals.keys() <= set(course) else ""
        raise ConfigError(
            f"{folder} belongs to another run: " + "; ".join(refusals.values()),
            remedy=f"set these back{hint}, give the new run another --out, or delete {parent} to start over",
        )
    return SavedCheckpoint(folder, state["step"], state["extra"], tuple(changed.values())), problems


def load(checkpoint: SavedCheckpoint, optimizer: AdamW) -> None:
    """Put the weights, the optimizer and the generators back, bit for bit. The model keeps its tensors."""
    weights = _read(checkpoint.folder / "weights.safetensors")
    if weights.keys() != optimizer.parameters.keys():
        odd = sorted(weights.keys() ^ optimizer.parameters.keys())
        raise StoreError(
            f"{checkpoint.folder} holds other trainable parameters than the model, {odd[0]!r} first",
            remedy="the model or its adapter changed: give the new run another --out",
        )
    optimizer.put(weights)
    optimizer.load_state(_read(checkpoint.folder / "optimizer.safetensors"))
    _set_generators(_read(checkpoint.folder / "rng.safetensors"))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return {key: f"{key} was {_short(old.get(key))} and is {_short(new.get(key))}" for key in keys}


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that safetensors accepts: contiguous, each with its own storage."""
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping, though it has keys()


def _generators() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_generators(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda.{i}" in states:
                torch.cuda.set_rng_state(states[f"cuda.{i}"], i)
    if torch.backends.mps.is_available() and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
