"""The wind tunnel's judges.

Three speak: the oracle, which knows the truth and does not see length; a judge of the usual kind, in doubt and with a
liking for length that is a dial; and the same judge without that liking, which is what length control ought to recover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab import store, windtunnel
from trimtab.analysis.canaries import EVEN, canary_rows
from trimtab.config import config_digest
from trimtab.judging.judges import FunctionJudge, Judge
from trimtab.judging.verdicts import canaries, judge_answers
from trimtab.progress import Reporter
from trimtab.records import Answer, digest
from trimtab.runtime.benchmark_prompts import evaluation_tasks
from trimtab.runtime.run_setup import RunSetup

Tasks = Mapping[str, windtunnel.Task]


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Write `verdicts/windtunnel.<judge>.json` for every judge, the true scores, `….scores.json`, and the canaries."""
    config, folder, name = setup.config, setup.folder, windtunnel.NAME
    before, after = (
        [Answer.from_json(row) for row in store.read_json(folder.require(path, "generate"))]
        for path in (folder.baseline_answers(name), folder.answers(name))
    )
    bias = config.windtunnel.judge_length_bias
    inputs = digest([[answer.to_json() for answer in before + after], config_digest(config, "judge"), bias])
    if folder.is_done("judge", inputs):
        reporter.say(f"judge: {name} is judged already")
        return
    tasks = {task.id: task for task in evaluation_tasks(config.windtunnel.prompts)}
    judges = (
        oracle(tasks),
        noisy_judge("unbiased", tasks, length_bias=0.0),
        noisy_judge("biased", tasks, length_bias=bias),
    )
    paths = []
    for judge in judges:
        paths.append(folder.verdicts(name, judge.name))
        store.write_json(paths[-1], [verdict.to_json() for verdict in judge_answers(judge, before, after)])
    paths.append(folder.verdicts(name, "scores"))
    families = [answer.dataset for answer in before]
    scores = {"baseline": true_scores(tasks, before), "model": true_scores(tasks, after), "families": families}
    store.write_json(paths[-1], scores)
    if config.judge.canaries:
        paths.append(folder.canaries(name))
        rows = [_canary_entry(judge, before, n=config.judge.canaries) for judge in judges]
        store.write_json(paths[-1], rows)
    folder.finish("judge", inputs, paths)
    reporter.say(f"judge: {len(after)} answers judged by the oracle and by judges with and without a length bias")


def oracle(tasks: Tasks) -> Judge:
    """The truth: the better answer wins, equally good ones tie."""
    return FunctionJudge("oracle", lambda prompt, old, new: windtunnel.oracle_preference(tasks[prompt], old, new))


def noisy_judge(name: str, tasks: Tasks, *, length_bias: float) -> Judge:
    """A judge with doubt and a liking for length: 1 + σ(scale · quality lead + `length_bias` · words longer)."""
    return FunctionJudge(
        name, lambda prompt, old, new: windtunnel.preference(tasks[prompt], old, new, length_bias=length_bias)
    )


def true_scores(tasks: Tasks, answers: Sequence[Answer]) -> list[float]:
    """Quality in [0, 1] of every answer, in the benchmark's order."""
    return [windtunnel.score(tasks[answer.prompt_id], answer.output).total for answer in answers]


def _canary_entry(judge: Judge, baseline: Sequence[Answer], *, n: int) -> object:
    """Half of the baseline answers are wrong, so that a worthless one ties with many: even is the limit."""
    preferences = {
        name: [verdict.preference for verdict in verdicts]
        for name, verdicts in canaries(judge, baseline, prompts=n).items()
    }
    return {"judge": judge.name, "canaries": [row.to_json() for row in canary_rows(preferences, threshold=EVEN)]}
