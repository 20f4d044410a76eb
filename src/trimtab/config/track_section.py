"""The keys of experiment trackers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from trimtab.config.section import Section


class TrackSection(Section):
    """Experiment trackers; what a run writes is complete without any."""

    to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = Field(
        (), description="tensorboard, wandb, mlflow, trackio, with commas between; each needs its library installed"
    )
    project: str = Field(
        "trimtab",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="under which trackers file the run: letters, digits, - and _",
    )

    @field_validator("to", mode="before")
    @classmethod
    def _as_names(cls, value: Any) -> Any:
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        return (
            tuple(dict.fromkeys(name for name in names if name != "none")) if isinstance(names, list | tuple) else names
        )
