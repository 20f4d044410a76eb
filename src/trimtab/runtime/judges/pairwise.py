"""One judge of the user's choice, an endpoint or a reward model, compares answers with the baseline's.

Where the baseline is somebody else's, the unaligned model's answers are compared with it too: what alignment did is the
difference of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.analysis.canaries import EVEN, canary_rows
from trimtab.config import Config, config_digest
from trimtab.judging.endpoint_judge import EndpointJudge
from trimtab.judging.judges import Comparison, Judge
from trimtab.judging.rubrics import is_switched
from trimtab.judging.verdicts import canaries, canary_answers, judge_answers, pair_answers
from trimtab.progress import Reporter
from trimtab.records import Answer, Verdict, digest
from trimtab.runtime.folder import Folder
from trimtab.runtime.inputs import benchmark, benchmark_name
from trimtab.runtime.judges import judge_setup
from trimtab.runtime.signals import stop_on_signal


def main(config: Config, *, reporter: Reporter) -> None:
    """Write the verdicts on both models, `verdicts/<benchmark>.json` and `….unaligned.json`, canaries, and who judged.

    What got no verdict is null there. Unless that is allowed, the stage is then not done, and asks again next time.
    """
    name = benchmark_name(config)
    assert name is not None
    folder = Folder.of(config)
    baseline, sides = answers(folder, name)
    rows = [one.to_json() for some in (baseline, *sides.values()) for one in some]
    inputs = digest([rows, config_digest(config, "judge", "benchmark", "base_url")])
    if folder.is_done("judge", inputs):
        reporter.say(f"judge: {name} is judged already")
        return
    with stop_on_signal() as stop, judge_setup.seated(config, reporter=reporter, stop=stop) as seated:
        wanted = comparisons(baseline, list(sides.values()), n_canaries=config.judge.canaries)
        judge = seated.judge(next(iter(wanted), None))
        seated.announce(judge, wanted)
        told = {path: judge_answers(judge, baseline, some) for path, some in sides.items()}
        shown = canaries(judge, baseline, prompts=config.judge.canaries)
        about = seated.about(judge)
    for path, verdicts in told.items():
        store.write_json(path, [one.to_json() for one in verdicts])
    store.write_json(folder.canaries(name), [{"judge": judge.name, "canaries": _sung(shown, config, judge)}])
    missing = {path: len(baseline) - _n_judged(verdicts) for path, verdicts in told.items()}
    aligned = folder.verdicts(name)
    counts = {"n_prompts": len(baseline), "n_missing": missing[aligned], "allow_missing": config.judge.allow_missing}
    unanswered = len(baseline) - len(told[aligned])
    reasons = ", ".join(filter(None, [f"not answered: {unanswered}" if unanswered else "", about["reasons"]]))
    store.write_json(folder.judge(name), about | counts | {"reasons": reasons})
    if config.judge.allow_missing or not any(missing.values()):
        folder.finish("judge", inputs, [*told, folder.canaries(name), folder.judge(name)])
    reporter.say(f"judge: {len(baseline) - missing[aligned]} of {len(baseline)} answers judged by {judge.name}")


def answers(folder: Folder, name: str) -> tuple[list[Answer], dict[Path, list[Answer]]]:
    """The baseline's answers, and those to be judged by the file of their verdicts: the aligned model's first."""
    sides = {folder.verdicts(name): _read(folder, folder.answers(name))}
    if folder.unaligned_answers(name).is_file():
        sides[folder.unaligned_verdicts(name)] = _read(folder, folder.unaligned_answers(name))
    return _read(folder, folder.baseline_answers(name)), sides


def comparisons(baseline: Sequence[Answer], sides: Sequence[Sequence[Answer]], *, n_canaries: int) -> list[Comparison]:
    """Everything that `main` asks its judge, canaries included."""
    asked = [pair for some in sides for pair in pair_answers(baseline, some).pairs if pair[0].output != pair[1].output]
    shown = canary_answers(baseline, prompts=n_canaries)
    asked += [pair for some in shown.values() for pair in pair_answers(baseline, some).pairs]
    return [Comparison(old.prompt_id, old.instruction, old.output, new.output) for old, new in asked]


def _sung(shown: Mapping[str, Sequence[Verdict]], config: Config, judge: Judge) -> list[dict[str, Any]]:
    """A worthless answer is held to less against the unaligned model, which may be weak, than a published baseline."""
    told = {name: [one.preference for one in verdicts] for name, verdicts in shown.items()}
    orders = isinstance(judge, EndpointJudge) and not judge.both_orders
    switched = {name: [is_switched(one.instruction) for one in verdicts] for name, verdicts in shown.items()}
    return canary_rows(
        told, threshold=None if benchmark(config).has_baseline else EVEN, switched=switched if orders else None
    )


def _read(folder: Folder, path: Path) -> list[Answer]:
    return [Answer.from_json(row) for row in store.read_json(folder.require(path, "generate"))]


def _n_judged(verdicts: Sequence[Verdict]) -> int:
    return sum(one.preference is not None for one in verdicts)
