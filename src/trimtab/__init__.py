"""trimtab: align small language models with preference pairs, and say honestly whether it helped.

    import trimtab

    run = trimtab.train("Qwen/Qwen2.5-0.5B-Instruct", pairs="pairs.jsonl", objective=trimtab.ApoHingeZero(margin=1.0))
    run.metrics.plot(x="step", y="loss")

Importing this costs no torch; names are loaded when they are first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trimtab.version import __version__ as __version__

# Read by GNU OpenMP, which comes with torch on Linux, when it is loaded: how long a thread that waits for the others
# spins before it sleeps. By default it does so for milliseconds, in which it keeps the very thread that it waits for
# from a processor that other work shares (`benchmarks/shared_machine.py`).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__all__ = [
    "Answer",
    "Aot",
    "AotUnpaired",
    "ApoDown",
    "ApoHingeSoftplus",
    "ApoHingeZero",
    "ApoHingeZeroUnpaired",
    "ApoZero",
    "ApoZeroUnpaired",
    "BcoPair",
    "Callback",
    "Discopop",
    "Dpo",
    "DpoHinge",
    "Dpop",
    "End",
    "ExoPair",
    "Ipo",
    "Kto",
    "MarginSigmoid",
    "Message",
    "Milestone",
    "Mixture",
    "Modified",
    "NcaPair",
    "Objective",
    "Odpo",
    "Orpo",
    "Pair",
    "Repo",
    "Report",
    "Robust",
    "Run",
    "Sft",
    "SigmoidNorm",
    "Simpo",
    "SppoHard",
    "Step",
    "Sweep",
    "TokenPair",
    "TrimtabError",
    "Unpaired",
    "Verdict",
    "Wpo",
    "compare",
    "judge",
    "run",
    "sweep",
    "train",
    "winrate",
]

_HOMES = {
    **dict.fromkeys(("Answer", "Message", "Pair", "TokenPair", "Unpaired", "Verdict"), "trimtab.records"),
    **dict.fromkeys(("Callback", "End", "Milestone", "Step"), "trimtab.callbacks"),
    **dict.fromkeys(("Report", "Run", "Sweep", "compare", "judge", "run", "sweep", "train", "winrate"), "trimtab.api"),
    "TrimtabError": "trimtab.errors",
}

if TYPE_CHECKING:
    from trimtab.api import Report, Run, Sweep, compare, judge, run, sweep, train, winrate
    from trimtab.callbacks import Callback, End, Milestone, Step
    from trimtab.errors import TrimtabError
    from trimtab.objectives import (
        Aot,
        AotUnpaired,
        ApoDown,
        ApoHingeSoftplus,
        ApoHingeZero,
        ApoHingeZeroUnpaired,
        ApoZero,
        ApoZeroUnpaired,
        BcoPair,
        Discopop,
        Dpo,
        DpoHinge,
        Dpop,
        ExoPair,
        Ipo,
        Kto,
        MarginSigmoid,
        Mixture,
        Modified,
        NcaPair,
        Objective,
        Odpo,
        Orpo,
        Repo,
        Robust,
        Sft,
        SigmoidNorm,
        Simpo,
        SppoHard,
        Wpo,
    )
    from trimtab.records import Answer, Message, Pair, TokenPair, Unpaired, Verdict


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "trimtab.objectives")), name)
    raise AttributeError(f"module 'trimtab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
