"""Flags that have no effect where they stand."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.errors import ConfigError


def refuse_idle(flags: Mapping[str, bool], *, reason: str) -> None:
    """Raises ConfigError for the flags that are set. `reason`: why they would have no effect."""
    if names := [name for name, is_set in flags.items() if is_set]:
        verb, pronoun = ("has", "it") if len(names) == 1 else ("have", "them")
        raise ConfigError(f"{', '.join(names)} {verb} no effect here: {reason}", remedy=f"leave {pronoun} out")
