"""Commands for what a finished run has left."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from trimtab.cli.app import AsJson, switch
from trimtab.cli.idle import refuse_idle
from trimtab.cli.terminal import reporter, show
from trimtab.errors import ConfigError


def calibrate(
    run_folder: str,
    *,
    trust_remote_code: Annotated[bool, Parameter(name="--model.trust-remote-code")] = False,
    as_json: AsJson = False,
) -> None:
    from trimtab.studies.calibration import command

    measurement = command.main(run_folder, reporter=reporter(), trust_remote_code=trust_remote_code)
    show(measurement, as_json, command.lines)


def check(
    run_folder: str | None = None,
    *,
    tasks: Annotated[str | None, Parameter(help="task files (YAML) and names, parted by commas")] = None,
    before: Annotated[str | None, Parameter(help="a folder of lm-eval --log_samples: the model before")] = None,
    after: Annotated[str | None, Parameter(help="the same of the model after; needs no RUN")] = None,
    limit: Annotated[int | None, Parameter(help="the first N samples of each task")] = None,
    chat: Annotated[bool, switch("ask in the model's chat template")] = False,
    offline: Annotated[bool, switch("never reach for the Hub")] = False,
    as_json: AsJson = False,
) -> None:
    from trimtab.commands import check as command

    if run_folder is None and tasks is None and before and after:
        flags = {"--limit": limit is not None, "--chat": chat, "--offline": offline}
        refuse_idle(flags, reason="the samples of --before and --after are there already")
        result = command.of_files(before, after)
    elif run_folder is not None and tasks is not None and not (before or after):
        result = command.main(run_folder, tasks=tasks, limit=limit, chat=chat, offline=offline, reporter=reporter())
    else:
        raise ConfigError(
            "trimtab check reads either a run or what lm-eval wrote",
            remedy="write RUN --tasks FILE.yaml,NAME, or --before FOLDER --after FOLDER",
        )
    show(result, as_json, command.lines)


def probe(*run_folders: str, as_json: AsJson = False) -> None:
    from trimtab.studies.length_probe import command

    show(command.main(run_folders, reporter=reporter()), as_json, command.lines)


def chat(
    run_folder: str,
    *,
    temperature: Annotated[float, Parameter(help="0 is greedy")] = 0.7,
    system: Annotated[str | None, Parameter(help="a message before the first line")] = None,
    seed: int = 0,
) -> None:
    from trimtab.commands import chat as command

    command.main(run_folder, temperature=temperature, system=system, seed=seed)


def push(
    run_folder: str,
    repo: Annotated[str, Parameter(help="OWNER/NAME on the Hub")],
    *,
    private: Annotated[bool, switch("a new repository is private")] = False,
    merged: Annotated[bool, switch("an adapter folded into its base")] = False,
    dry_run: Annotated[bool, switch("show the files and the card; nothing is sent")] = False,
    as_json: AsJson = False,
) -> None:
    from trimtab.commands import push as command

    result = command.main(run_folder, repo, private=private, merged=merged, dry_run=dry_run, reporter=reporter())
    show(result, as_json, command.lines)


def export(
    run_folder: str,
    *,
    format: str = "hf",  # the flag's own name
    quantize: Annotated[str | None, Parameter(help="with gguf: f32, f16 (the default) or q8_0")] = None,
    to: str | None = None,
) -> None:
    from trimtab.commands import export as command

    exported = command.main(run_folder, format=format, to=to, quantize=quantize)
    say = reporter().say
    for note in exported.notes:
        say(note)
    print(exported.folder)
