"""Interim, for rooms that still hand the configuration around: ask `run_setup` and its neighbours instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab import store
from trimtab.config import Config
from trimtab.engine import models
from trimtab.engine.reference import ReferenceKey
from trimtab.records import TokenPair
from trimtab.runtime import memory_fit, model_loading, run_identity
from trimtab.runtime.folder import Folder
from trimtab.runtime.model_loading import checked_scorer as scorer
from trimtab.runtime.run_setup import set_up

__all__ = ["load", "pack_tokens", "read_pairs", "reference_key", "scorer", "use_threads"]


def read_pairs(path: Path) -> list[TokenPair]:
    return [TokenPair.from_json(row) for row in store.iter_jsonl(path)]


def use_threads(config: Config) -> None:
    set_up(config).use_threads()


def load(config: Config) -> models.Loaded:
    return model_loading.load_unaligned(set_up(config))


def reference_key(config: Config, _folder: Folder) -> ReferenceKey:
    return run_identity.reference_key(set_up(config))


def pack_tokens(config: Config, *, pairs: Sequence[TokenPair]) -> int:
    return memory_fit.pack_tokens(set_up(config), pairs=pairs)
