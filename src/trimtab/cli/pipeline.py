"""Commands that run the pipeline, or one of its stages, once or over a grid."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from trimtab import config as configuration
from trimtab import store
from trimtab.cli.app import AsJson, switch
from trimtab.cli.configuration import NO_KEYS, Source, base_tree, read
from trimtab.cli.terminal import reporter, show
from trimtab.commands import launch
from trimtab.config import Config
from trimtab.config.flags import Keys, tree
from trimtab.engine.processes import ALONE, Processes, has_launcher, join
from trimtab.errors import ConfigError
from trimtab.progress import Reporter

if TYPE_CHECKING:
    from trimtab.runtime import RunSetup
    from trimtab.runtime.folder import Folder

Quiet = Annotated[bool, switch("plain lines, no bars")]
SHARED_STAGES = frozenset({"reference", "train", "generate"})  # whose work several processes divide
Resume = Annotated[bool, switch("go on with a stopped run")]
ResumeAnyway = Annotated[bool, switch("train on also where length, learning rate or schedule of the training changed")]
DryRun = Annotated[bool, switch("say what the judge would be asked and what that costs, and stop")]


def run(
    source: Source = None,
    /,
    *,
    resume: Resume = False,
    resume_anyway: ResumeAnyway = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    keys: Keys = NO_KEYS,
) -> None:
    config = read(source, keys, sends_requests=True)
    if dry_run or as_json:
        _estimate(config, dry_run, as_json)
        return
    from trimtab.commands import run as command

    with _processes(config, quiet=quiet) as (processes, own):
        command.main(config, reporter=own, resume=resume, resume_anyway=resume_anyway, processes=processes)


def reward(
    data: str,
    /,
    *,
    resume: Resume = False,
    resume_anyway: ResumeAnyway = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    keys: Keys = NO_KEYS,
) -> None:
    from trimtab.commands import reward as command

    config = command.resolve_config(data, tree(keys))
    result = command.main(config, reporter=reporter(quiet=quiet), resume=resume, resume_anyway=resume_anyway)
    show(result, as_json, command.lines)


def _estimate(config: Config, dry_run: bool, as_json: bool) -> None:
    """What judging would take; nothing is asked and nothing is written."""
    if not dry_run:
        raise ConfigError("--json has no effect here", remedy="use it with --dry-run, or with a reporting command")
    from trimtab.commands import dry_run as command

    show(command.main(config), as_json, command.lines)


def prepare(source: Source = None, /, *, quiet: Quiet = False, keys: Keys = NO_KEYS) -> None:
    _run_stage("prepare", read(source, keys), quiet=quiet)


def reference(source: Source = None, /, *, quiet: Quiet = False, keys: Keys = NO_KEYS) -> None:
    _run_stage("reference", read(source, keys), quiet=quiet)


def train(
    source: Source = None, /, *, resume_anyway: ResumeAnyway = False, quiet: Quiet = False, keys: Keys = NO_KEYS
) -> None:
    _run_stage("train", read(source, keys), quiet=quiet, resume_anyway=resume_anyway)


def generate(source: Source = None, /, *, quiet: Quiet = False, keys: Keys = NO_KEYS) -> None:
    _run_stage("generate", read(source, keys, sends_requests=True), quiet=quiet)


def report(source: Source = None, /, *, quiet: Quiet = False, as_json: AsJson = False, keys: Keys = NO_KEYS) -> None:
    setup = _run_stage("report", read(source, keys), quiet=quiet)
    if as_json:
        show(store.read_json(setup.folder.report("json")), as_json, lambda _: [])


def judge(
    source: Source = None,
    /,
    *,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    keys: Keys = NO_KEYS,
) -> None:
    from trimtab.studies.winrate import judge_file

    if source is not None and judge_file.holds_answers(source):
        if dry_run:
            raise ConfigError("--dry-run needs a run or a configuration", remedy="leave it out for a file of answers")
        from trimtab.studies.winrate.words import lines

        config = judge_file.resolve(source, tree(keys))
        show(judge_file.main(source, config, reporter=reporter(quiet=quiet)), as_json, lines)
        return
    config = read(source, keys, sends_requests=True)
    if dry_run or as_json:
        _estimate(config, dry_run, as_json)
    else:
        _run_stage("judge", config, quiet=quiet)


@contextmanager
def _processes(config: Config, *, quiet: bool, shares: bool = True) -> Iterator[tuple[Processes, Reporter]]:
    """The processes that a launcher has started for this command, and what this one may show. Where none has, and more
    than one is wanted, they are started, and this process ends with them. `shares`: whether there is work to share;
    where there is none the first process is alone (`launch.one_of_several` has sent the others home)."""
    if shares and not has_launcher():
        launch.start_if_several(config.engine, say=reporter(quiet=quiet).say)
    processes = join(timeout=config.engine.timeout, device=config.engine.device) if shares else ALONE
    with processes.one_message():
        yield processes, reporter(quiet=quiet, silent=not processes.is_first)


def _run_stage(name: str, config: Config, *, quiet: bool, resume_anyway: bool = False) -> RunSetup:
    """Returns what it was run on."""
    _require_work(name, config)
    from trimtab.runtime import set_up

    runner, stage = import_module("trimtab.commands.run"), import_module(f"trimtab.stages.{name}")
    options = {"resume_anyway": True} if resume_anyway else {}  # of train alone
    trains = name in ("prepare", "reference", "train")
    with _processes(config, quiet=quiet, shares=name in SHARED_STAGES) as (processes, own):
        setup = set_up(config, processes=processes)
        if name == "judge":  # before the folder is told of another judge
            runner.judge_setup.require(setup)
        with runner.hold_run_folder(setup, reporter=own, trains=trains, **options):
            for single in runner.seeds(setup, reporter=own, trains=trains):
                for earlier in processes.first(partial(_missing_before, name, single.folder)):
                    _call_stage(earlier, single, own)
                audience = runner.trackers(single, reporter=own) if name == "train" and processes.is_first else []
                with runner.listeners.until_the_end(single, audience):
                    _call_stage(name, single, own, **options, **({"callbacks": audience} if audience else {}))
                if name == "judge":
                    stage.refuse_if_incomplete(single)
            if name == "report" and config.seeds > 1:
                stage.main(setup, reporter=own)
    return setup


def _call_stage(name: str, setup: RunSetup, reporter: Reporter, **options: Any) -> None:
    """On all processes where they share its work, else on the first."""
    stage = import_module(f"trimtab.stages.{name}")
    if name in SHARED_STAGES:
        import_module("trimtab.runtime.preflight").agree(setup)
        stage.main(setup, reporter=reporter, **options)
    else:
        setup.processes.first(partial(stage.main, setup.apart, reporter=reporter))


def _require_work(name: str, config: Config) -> None:
    """Raises ConfigError where a stage would have nothing to do."""
    if name not in ("generate", "judge"):
        return
    if config.benchmark.name == "none":
        raise ConfigError(
            f"{config.out} has no benchmark: there is nothing to {'answer' if name == 'generate' else 'judge'}",
            remedy="add --benchmark NAME or a file of prompts",
        )
    if name == "judge" and config.judge.kind == "none":
        raise ConfigError(f"{config.out} has no judge", remedy="add --judge openai:MODEL or reward:MODEL")


def _missing_before(name: str, folder: Folder) -> list[str]:
    """The stages whose results a stage reads and that are not there, in the order in which they have to run."""
    prepare, reference, train = (("prepare", folder.data), ("reference", folder.reference), ("train", folder.model))
    needs = {"reference": [prepare], "train": [prepare, reference], "generate": [prepare, reference, train]}
    if name == "generate" and folder.model.exists():
        return []  # whatever became of what it was made from
    return [stage for stage, result in needs.get(name, []) if not result.exists()]


def plan(
    source: Source = None,
    /,
    *,
    pilot_steps: Annotated[int | None, switch("make so many steps, and say what regime the run is heading for")] = None,
    as_json: AsJson = False,
    keys: Keys = NO_KEYS,
) -> None:
    if pilot_steps is not None and pilot_steps < 2:
        raise ConfigError(f"--pilot-steps {pilot_steps} are too few", remedy="write --pilot-steps 20")
    flags = tree(keys)
    base = base_tree(source, flags)
    if "sweep" in base:
        if pilot_steps is not None:
            raise ConfigError("--pilot-steps is of one run, and this is a sweep", remedy="leave it out")
        from trimtab.studies.sweep import command as sweep_command
        from trimtab.studies.sweep import plan as sweep_plan

        prediction = sweep_plan.plan(sweep_command.expand(base, flags), reporter=reporter())
        show(prediction.to_json(), as_json, lambda _: sweep_plan.lines(prediction))
        return
    config = configuration.resolve(configuration.merge(base, flags))
    from trimtab.commands import plan as command
    from trimtab.runtime import set_up

    setup = set_up(config)
    result = command.plan(setup, reporter=reporter())
    if pilot_steps is not None:
        from trimtab.commands.pilot import pilot

        result = pilot(result, setup, steps=pilot_steps, reporter=reporter())
    show(result.to_json(), as_json, lambda _: command.lines(result))


def sweep(
    source: Source = None,
    /,
    *,
    grid: Annotated[
        tuple[str, ...],
        switch("an axis, such as objective.margin=0.5,1,2; may be repeated"),
    ] = (),
    trials: Annotated[
        int | None,
        Parameter(help="search the grid by so many points; ranges are 1e-5..1e-3; pip install 'trimtab[sweep]'"),
    ] = None,
    workers: Annotated[
        int | None, Parameter(help="runs made at once; 1 unless said, and as many as there is room on a cluster")
    ] = None,
    on: Annotated[Literal["local", "slurm", "ray"], Parameter(help="where runs are made")] = "local",
    cpus_per_run: Annotated[int | None, Parameter(help="CPU threads of each; 1 on a cluster unless said")] = None,
    gpus_per_run: Annotated[float | None, Parameter(help="0, 1, or a share such as 0.5")] = None,
    retry_failed: Annotated[bool, switch("try failed runs again")] = False,
    stop_starved: Annotated[bool, switch("end a run early in which nothing is active")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    keys: Keys = NO_KEYS,
    words: Annotated[tuple[str, ...], Parameter(parse=False)] = (),
) -> None:
    from trimtab.studies.sweep import command
    from trimtab.studies.sweep import grid as axes
    from trimtab.studies.sweep.resources import Resources
    from trimtab.studies.sweep.words import lines

    resources = Resources(on, workers, cpus_per_run, gpus_per_run)
    flags = tree(keys)
    base, grid_axes = base_tree(source, flags), [axes.read_axis(axis) for axis in grid]
    result = command.main(
        command.expand_any(base, flags, axes=grid_axes, n_trials=trials),
        command=shlex.join(["trimtab", *words]),
        reporter=reporter(quiet=quiet),
        resources=resources,
        retry_failed=retry_failed,
        stop_starved=stop_starved,
    )
    show(result.to_json(), as_json, lambda _: lines(result))
    command.require_whole(result)
