"""Judge: which of two answers is better, the baseline's or the aligned model's; or how good each is, marked alone.

Every judge is shown canaries: answers of which it is known what a sound judge says.
"""

from __future__ import annotations

from trimtab import store
from trimtab.errors import RunError
from trimtab.progress import Reporter
from trimtab.runtime.judges import grading, pairwise, windtunnel_judges
from trimtab.runtime.judges.judge_record import JudgeRecord
from trimtab.runtime.run_setup import RunSetup


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Write `verdicts/<benchmark>….json`: the verdicts, what the canaries showed, and who judged."""
    config = setup.config
    if setup.benchmark_name is None or config.judge.kind == "none":
        return
    if config.judge.kind == "oracle":
        windtunnel_judges.main(setup, reporter=reporter)
    elif setup.benchmark.multi_turn:
        grading.main(setup, reporter=reporter)
    else:
        pairwise.main(setup, reporter=reporter)


def refuse_if_incomplete(setup: RunSetup) -> None:
    """Raises RunError where more than 1 % of the prompts have no verdict and the configuration does not allow that."""
    name, config = setup.benchmark_name, setup.config
    if name is None or config.judge.kind in ("none", "oracle"):
        return
    record = JudgeRecord.from_json(store.read_json(setup.folder.judge(name)))
    if record.too_many_missing and not config.judge.allow_missing:
        reasons = f" ({record.usage.reasons})" if record.usage.reasons else ""
        raise RunError(
            f"judge: {record.n_missing} of {record.n_prompts} prompts have no verdict{reasons}, so there is no "
            "headline number",
            remedy="the same command asks again for those that were answered; --allow-missing reports without them",
        )
