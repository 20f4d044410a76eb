"""Commands of the first minutes: a recipe, the runs that there are, the room that they take."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from trimtab.cli.app import AsJson, switch
from trimtab.cli.terminal import reporter, show


def init(
    *,
    model: Annotated[str | None, Parameter(help="a Hub id, a folder or a GGUF file", show_default=False)] = None,
    data: Annotated[str | None, Parameter(help="a file of pairs or a Hub data set", show_default=False)] = None,
    machine: Annotated[
        Literal["auto", "cpu", "gpu"], Parameter(help="what it will train on; auto: what there is here")
    ] = "auto",
    objective: str = "apo_hinge_zero",
    to: Annotated[str, Parameter(help="the recipe's file")] = "recipe.toml",
    plan: Annotated[bool, Parameter(help="read model and pairs, and say what the run will cost")] = True,
) -> None:
    from trimtab.commands import init as command

    recipe = command.main(model=model, data=data, machine=machine, objective=objective, to=to)
    say = reporter().say
    say(f"written: {recipe.path}")
    for note in recipe.notes:
        say(note)
    if plan:
        for line in command.cost(recipe, reporter=reporter()):
            print(line)
    print(f"start it with: trimtab run {recipe.path}")


def ls(folder: str = "runs", /, *, as_json: AsJson = False) -> None:
    from trimtab.commands import run_list as command

    show(command.main(folder), as_json, command.lines)


def cache(
    *,
    prune: Annotated[str, Parameter(help="kinds to delete, with commas; all: those that runs make again")] = "",
    older_than: Annotated[float, Parameter(help="with --prune: only what was made more than so many days ago")] = 0.0,
    move_to: Annotated[
        str | None, Parameter(help="a new folder, while nothing runs; a link stays behind", show_default=False)
    ] = None,
    runs: Annotated[str, Parameter(help="the folder whose runs' checkpoints are counted")] = "runs",
    dry_run: Annotated[bool, switch("with --prune: say what would go, delete nothing")] = False,
    as_json: AsJson = False,
) -> None:
    from trimtab.commands import cache as command

    kinds = [kind.strip() for kind in prune.split(",") if kind.strip()]
    result = command.main(runs=runs, prune=kinds, older_than=older_than, move_to=move_to, dry_run=dry_run)
    show(result, as_json, command.lines)


def convert(
    file: str,
    /,
    *,
    to: Annotated[str, Parameter(help="the recipe's file")] = "recipe.toml",
    devices: Annotated[int, Parameter(help="how many devices the original ran on, for the size of its batches")] = 1,
    as_json: AsJson = False,
) -> None:
    from trimtab.commands import convert as command

    show(command.main(file, to=to, devices=devices), as_json, command.lines)


def install_completion(
    *, shell: Annotated[Literal["bash", "zsh", "fish"] | None, Parameter(help="default: this one")] = None
) -> None:
    from cyclopts.completion.detect import ShellDetectionError

    from trimtab.cli.app import app
    from trimtab.errors import ConfigError

    try:
        script = app.install_completion(shell=shell)
    except ShellDetectionError as error:
        raise ConfigError("which shell this is cannot be known", remedy="name it: --shell bash") from error
    print(f"{script}: open a new shell, and Tab completes")
