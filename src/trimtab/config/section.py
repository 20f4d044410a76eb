"""What every section of a configuration is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _switch_word(value: object) -> object:
    """TOML and JSON have true and false where a choice says on and off."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


OnOff = Annotated[Literal["on", "off"], BeforeValidator(_switch_word)]
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch_word)]


class Section(BaseModel):
    """Strict and frozen; a typing mistake is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
