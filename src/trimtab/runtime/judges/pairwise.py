"""One judge of the user's choice, an endpoint or a reward model, compares answers with the baseline's.

Where the baseline is somebody else's, the unaligned model's answers are compared with it too: what alignment did is the
difference of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from trimtab import store
from trimtab.analysis.canaries import EVEN, canary_rows
from trimtab.config import config_digest
from trimtab.engine import identity
from trimtab.judging.endpoint_judge import EndpointJudge
from trimtab.judging.judges import Comparison, Judge
from trimtab.judging.rubrics import is_switched
from trimtab.judging.verdicts import canaries, canary_answers, judge_answers, pair_answers
from trimtab.judging.verifiers import verifier_digest
from trimtab.progress import Reporter
from trimtab.records import Answer, Verdict, digest
from trimtab.runtime.folder import Folder
from trimtab.runtime.judges import judge_setup
from trimtab.runtime.judges.judge_record import JudgeRecord
from trimtab.runtime.judges.reward_model import reward_folder
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import stop_on_signal


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Write the verdicts on both models, `verdicts/<benchmark>.json` and `….unaligned.json`, canaries, and who judged.

    What got no verdict is null there. Unless that is allowed, the stage is then not done, and asks again next time.
    """
    name, config, folder = setup.benchmark_name, setup.config, setup.folder
    assert name is not None
    baseline, sides = answers(folder, name)
    rows = [answer.to_json() for model in (baseline, *sides.values()) for answer in model]
    inputs = digest([rows, config_digest(config, "judge", "benchmark", "base_url"), *_local_judge(setup)])
    if folder.is_done("judge", inputs):
        reporter.say(f"judge: {name} is judged already")
        return
    aligned, n_canaries = folder.verdicts(name), config.judge.canaries
    with stop_on_signal() as stop, judge_setup.configured_judge(setup, reporter=reporter, stop=stop) as source:
        pairs = comparisons(baseline, list(sides.values()), n_canaries=n_canaries)
        judge = source.judge(next(iter(pairs), None))
        source.announce(judge, pairs)
        verdicts = {path: judge_answers(judge, baseline, model) for path, model in sides.items()}
        source.check_position(judge, comparisons(baseline, [sides[aligned]], n_canaries=0))
        canary_verdicts = canaries(judge, baseline, prompts=n_canaries)
        record = JudgeRecord(
            identity=source.identity(judge),
            usage=source.usage(judge),
            n_prompts=len(baseline),
            n_missing=len(baseline) - _n_judged(verdicts[aligned]),
            n_unanswered=len(baseline) - len(verdicts[aligned]),
            allow_missing=config.judge.allow_missing,
        )
    for path, of_model in verdicts.items():
        store.write_json(path, [verdict.to_json() for verdict in of_model])
    _write_canaries(setup, judge, canary_verdicts, folder.canaries(name))
    store.write_json(folder.judge(name), record.to_json())
    if config.judge.allow_missing or all(_n_judged(of_model) == len(baseline) for of_model in verdicts.values()):
        folder.finish("judge", inputs, [*verdicts, folder.canaries(name), folder.judge(name)])
    for note in record.usage.notes:
        reporter.say(f"judge: {note}")
    n_judged = len(baseline) - record.n_missing
    reporter.say(f"judge: {n_judged} of {len(baseline)} answers judged by {judge.name}")


def _local_judge(setup: RunSetup) -> list[object]:
    """What decides the verdicts of a judge on this disk, beside its name: a verifier's program and the benchmark's rows
    that it is given, a reward model's weights and tokenizer. Nothing of any other judge."""
    match setup.config.judge.kind:
        case "verifier":
            return [setup.benchmark.rows, verifier_digest(setup.config.judge.name)]
        case "reward":
            folder, offline = reward_folder(setup.config), setup.config.offline
            return [astuple(identity.identify(str(folder), offline=offline))]
        case _:
            return []


def answers(folder: Folder, name: str) -> tuple[list[Answer], dict[Path, list[Answer]]]:
    """The baseline's answers, and those to be judged by the file of their verdicts: the aligned model's first."""
    sides = {folder.verdicts(name): _read(folder, folder.answers(name))}
    if folder.unaligned_answers(name).is_file():
        sides[folder.unaligned_verdicts(name)] = _read(folder, folder.unaligned_answers(name))
    return _read(folder, folder.baseline_answers(name)), sides


def comparisons(baseline: Sequence[Answer], sides: Sequence[Sequence[Answer]], *, n_canaries: int) -> list[Comparison]:
    """Everything that `main` asks its judge, canaries included."""
    pairs = [
        pair for model in sides for pair in pair_answers(baseline, model).pairs if pair[0].output != pair[1].output
    ]
    for canary in canary_answers(baseline, prompts=n_canaries).values():
        pairs += pair_answers(baseline, canary).pairs
    return [Comparison(old.prompt_id, old.instruction, old.output, new.output) for old, new in pairs]


def _write_canaries(setup: RunSetup, judge: Judge, verdicts: Mapping[str, Sequence[Verdict]], path: Path) -> None:
    """A worthless answer is held to less against the unaligned model, which may be weak, than a published baseline."""
    preferences = {name: [verdict.preference for verdict in of_canary] for name, of_canary in verdicts.items()}
    switched = {
        name: [is_switched(verdict.instruction) for verdict in of_canary] for name, of_canary in verdicts.items()
    }
    in_order = isinstance(judge, EndpointJudge) and not judge.both_orders
    threshold = None if setup.benchmark.has_baseline else EVEN
    rows = canary_rows(preferences, threshold=threshold, switched=switched if in_order else None)
    store.write_json(path, [{"judge": judge.name, "canaries": [row.to_json() for row in rows]}])


def _read(folder: Folder, path: Path) -> list[Answer]:
    return [Answer.from_json(row) for row in store.read_json(folder.require(path, "generate"))]


def _n_judged(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.preference is not None for verdict in verdicts)
