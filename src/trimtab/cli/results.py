"""Commands for what a finished run has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from trimtab.cli.app import AsJson, app
from trimtab.cli.words import reporter, show

if TYPE_CHECKING:
    pass


@app.command
def calibrate(
    run_folder: str,
    *,
    trust_remote_code: Annotated[bool, Parameter(name="--model.trust-remote-code")] = False,
    as_json: AsJson = False,
) -> None:
    """Calibration before and after, on held-out pairs: reward gap, next token, drift. Writes calibration.html."""
    from trimtab.studies.calibration import command

    told = command.main(run_folder, reporter=reporter(quiet=False), trust_remote_code=trust_remote_code)
    show(told, as_json, command.lines)


@app.command
def probe(*run_folders: str, as_json: AsJson = False) -> None:
    """Do pairs with the longer chosen response leave training first? Several RUNs stand side by side: probe.html."""
    from trimtab.studies.length_probe import command

    show(command.main(run_folders, reporter=reporter(quiet=False)), as_json, command.lines)


@app.command
def chat(run_folder: str) -> None:
    """Talk to an aligned model."""
    from trimtab.commands import chat as command

    command.main(run_folder)


@app.command
def export(run_folder: str, *, format: str = "hf", to: str | None = None) -> None:  # the flag's own name
    """Copy the aligned model out of a run: --format hf (as trained) or merged (adapter folded into the weights)."""
    from trimtab.commands import export as command

    print(command.main(run_folder, format=format, to=to))
