"""The wind tunnel: a small closed world in which the true quality of any answer can be computed.

`world` draws tasks over the words of `values`, `oracle` knows how good an answer is, `demonstrations` and `recipe` make
the tiny chat model that is shipped in `model/`, `labels` draws preference pairs whose length bias and noise are dials.
Only `tokenizer` and `recipe` need torch or transformers, and they import them when called.
"""

from pathlib import Path

from trimtab.windtunnel.labels import LabelledPairs, label, oracle_preference, preference, words
from trimtab.windtunnel.oracle import Score, score
from trimtab.windtunnel.world import FAMILIES, Split, Task, tasks

NAME = "windtunnel"  # to which the embedded world answers wherever a model, a data set or a benchmark is named

__all__ = [
    "FAMILIES",
    "NAME",
    "LabelledPairs",
    "Score",
    "Split",
    "Task",
    "label",
    "model_folder",
    "oracle_preference",
    "preference",
    "score",
    "tasks",
    "words",
]


def model_folder() -> Path:
    """The shipped chat model: a plain transformers folder with a model card."""
    return Path(__file__).parent / "model"
