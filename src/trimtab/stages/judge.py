"""Judge: which of two answers is better, the baseline's or the aligned model's; or how good each is, marked alone.

Every judge is shown canaries: answers of which it is known what a sound judge says.
"""

from __future__ import annotations

from trimtab import store
from trimtab.analysis.winrate import too_many_missing
from trimtab.config import Config
from trimtab.errors import RunError
from trimtab.progress import Reporter
from trimtab.runtime.folder import Folder
from trimtab.runtime.inputs import benchmark, benchmark_name
from trimtab.runtime.judges import grading, pairwise, windtunnel_judges


def main(config: Config, *, reporter: Reporter) -> None:
    """Write `verdicts/<benchmark>….json`: the verdicts, what the canaries showed, and who judged."""
    if benchmark_name(config) is None or config.judge.kind == "none":
        return
    if config.judge.kind == "oracle":
        windtunnel_judges.main(config, reporter=reporter)
    elif benchmark(config).multi_turn:
        grading.main(config, reporter=reporter)
    else:
        pairwise.main(config, reporter=reporter)


def refuse_if_incomplete(config: Config) -> None:
    """Raises RunError where more than 1 % of the prompts have no verdict and the configuration does not allow that."""
    name = benchmark_name(config)
    if name is None or config.judge.kind in ("none", "oracle"):
        return
    told = store.read_json(Folder.of(config).judge(name))
    if too_many_missing(told["n_missing"], of=told["n_prompts"]) and not config.judge.allow_missing:
        raise RunError(
            f"judge: {told['n_missing']} of {told['n_prompts']} prompts have no verdict"
            + (f" ({told['reasons']})" if told["reasons"] else "")
            + ", so there is no headline number",
            remedy="the same command asks again for those that were answered; --allow-missing reports without them",
        )
