"""The wind tunnel's judges.

Three speak: the oracle, which knows the truth and does not see length; a judge of the usual kind, in doubt and with a
liking for length that is a dial; and the same judge without that liking, which is what length control ought to recover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab import store, windtunnel
from trimtab.analysis.canaries import EVEN, canary_rows
from trimtab.config import Config, config_digest
from trimtab.judging.judges import FunctionJudge, Judge
from trimtab.judging.verdicts import canaries, judge_answers
from trimtab.progress import Reporter
from trimtab.records import Answer, Verdict, digest
from trimtab.runtime.folder import Folder
from trimtab.runtime.inputs import EMBEDDED, eval_tasks


def main(config: Config, *, reporter: Reporter) -> None:
    """Write `verdicts/windtunnel.<judge>.json` for every judge, the true scores, `….scores.json`, and the canaries."""
    folder = Folder.of(config)
    before, after = (
        [Answer.from_json(row) for row in store.read_json(folder.require(path, "generate"))]
        for path in (folder.baseline_answers(EMBEDDED), folder.answers(EMBEDDED))
    )
    bias = config.windtunnel.judge_length_bias
    inputs = digest([[one.to_json() for one in before + after], config_digest(config, "judge"), bias])
    if folder.is_done("judge", inputs):
        reporter.say(f"judge: {EMBEDDED} is judged already")
        return
    tasks = {task.id: task for task in eval_tasks(config)}
    judges = (
        oracle(tasks),
        noisy_judge("unbiased", tasks, length_bias=0.0),
        noisy_judge("biased", tasks, length_bias=bias),
    )
    paths = []
    for judge in judges:
        paths.append(folder.verdicts(EMBEDDED, judge.name))
        store.write_json(paths[-1], [one.to_json() for one in judge_answers(judge, before, after)])
    paths.append(folder.verdicts(EMBEDDED, "scores"))
    store.write_json(paths[-1], true_scores(tasks, before, after))
    if config.judge.canaries:
        shown = ((judge.name, canaries(judge, before, prompts=config.judge.canaries)) for judge in judges)
        paths.append(folder.canaries(EMBEDDED))
        store.write_json(paths[-1], [{"judge": name, "canaries": _sung(told)} for name, told in shown])
    folder.finish("judge", inputs, paths)
    reporter.say(f"judge: {len(after)} answers judged by the oracle and by judges with and without a length bias")


def _sung(shown: Mapping[str, Sequence[Verdict]]) -> list[dict[str, Any]]:
    """Half of the baseline answers are wrong, so that a worthless one ties with many: even is the limit."""
    told = {name: [one.preference for one in verdicts] for name, verdicts in shown.items()}
    return canary_rows(told, threshold=EVEN)


def oracle(tasks: Mapping[str, windtunnel.Task]) -> Judge:
    """The truth: the better answer wins, equally good ones tie."""
    return FunctionJudge("oracle", lambda prompt, old, new: windtunnel.oracle_preference(tasks[prompt], old, new))


def noisy_judge(name: str, tasks: Mapping[str, windtunnel.Task], *, length_bias: float) -> Judge:
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
