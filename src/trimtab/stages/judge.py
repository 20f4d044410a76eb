"""Judge: which of two answers is better, the unaligned model's or the aligned one's.

In the embedded world three judges speak: the oracle, which knows the truth and does not see length; a judge of the
usual kind, in doubt and with a liking for length that is a dial; and the same judge without that liking, which is what
length control ought to recover.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab import store, windtunnel
from trimtab.config import Config, config_digest
from trimtab.judging.judges import FunctionJudge, Judge
from trimtab.judging.verdicts import judge_answers
from trimtab.progress import Reporter
from trimtab.records import Answer, digest
from trimtab.stages.folder import Folder
from trimtab.stages.inputs import benchmark_name, eval_tasks


def main(config: Config, *, reporter: Reporter) -> None:
    """Write `verdicts/<benchmark>.<judge>.json` for every judge, and the true scores, `….scores.json`."""
    name = benchmark_name(config)
    if name is None or config.judge.name == "none":
        return
    folder = Folder.of(config)
    before, after = (
        [Answer.from_json(row) for row in store.read_json(folder.require(path, "generate"))]
        for path in (folder.baseline_answers(name), folder.answers(name))
    )
    inputs = digest(
        [[one.to_json() for one in before + after], config_digest(config, "judge"), config.windtunnel.judge_length_bias]
    )
    if folder.is_done("judge", inputs):
        reporter.say(f"judge: {name} is judged already")
        return
    tasks = {task.id: task for task in eval_tasks(config)}
    paths = []
    bias = config.windtunnel.judge_length_bias
    for judge in (
        oracle(tasks),
        doubting("unbiased", tasks, length_bias=0.0),
        doubting("biased", tasks, length_bias=bias),
    ):
        paths.append(folder.verdicts(name, judge.name))
        store.write_json(paths[-1], [one.to_json() for one in judge_answers(judge, before, after)])
    paths.append(folder.verdicts(name, "scores"))
    store.write_json(paths[-1], true_scores(tasks, before, after))
    folder.finish("judge", inputs, paths)
    reporter.say(f"judge: {len(after)} answers judged by the oracle and by judges with and without a length bias")


def oracle(tasks: Mapping[str, windtunnel.Task]) -> Judge:
    """The truth: the better answer wins, equally good ones tie."""
    return FunctionJudge("oracle", lambda prompt, old, new: windtunnel.oracle_preference(tasks[prompt], old, new))


def doubting(name: str, tasks: Mapping[str, windtunnel.Task], *, length_bias: float) -> Judge:
    """A judge with doubt and a liking for length: 1 + σ(scale · quality lead + `length_bias` · words longer)."""
    return FunctionJudge(
        name, lambda prompt, old, new: windtunnel.preference(tasks[prompt], old, new, length_bias=length_bias)
    )


def true_scores(
    tasks: Mapping[str, windtunnel.Task], before: list[Answer], after: list[Answer]
) -> dict[str, list[Any]]:
    """Quality in [0, 1] of every answer of both models, in the benchmark's order."""

    def totals(answers: list[Answer]) -> list[float]:
        return [windtunnel.score(tasks[one.prompt_id], one.output).total for one in answers]

    return {"baseline": totals(before), "model": totals(after), "families": [one.dataset for one in before]}
