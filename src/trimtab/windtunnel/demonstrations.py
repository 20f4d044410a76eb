"""What the tiny model is shown: answers of mixed quality, dressed in politeness that says nothing about quality.

A model trained on right answers only leaves alignment nothing to select. So a demonstration is drawn in two independent
steps. The **mode** decides quality:

    right  the answer                                      wrong  one or more values replaced, well said
    cut    broken off in the middle                        twice  the answer, and the answer again
    off    a sentence that answers some other question

and the **dressing** decides length: zero to three filler sentences before and after. Because the two are independent,
no amount of filler carries information about quality.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import Final, Literal, get_args

from trimtab.windtunnel.values import VALUES
from trimtab.windtunnel.world import FAMILIES, Task, tasks

Mode = Literal["right", "wrong", "cut", "twice", "off"]

# Share of each mode. `cut` is shorter than the right answer and `twice` longer; at these shares the flawed modes
# together have the same mean length as the right one (5.3 words each, tested).
MIX: Final[Mapping[Mode, float]] = {"right": 0.34, "wrong": 0.21, "cut": 0.18, "twice": 0.09, "off": 0.18}

OPENERS: Final = (
    "Sure, glad to help.",
    "Good question!",
    "Let us see.",
    "Of course.",
    "Here is the answer.",
    "Thank you for asking.",
    "With pleasure.",
    "I can help with that.",
)
CLOSERS: Final = (
    "Let me know if there is more.",
    "I hope this helps.",
    "Feel free to ask again.",
    "Have a nice day.",
    "That is all there is to it.",
    "It is always worth a second look.",
    "Do not hesitate to write back.",
    "I am glad that we could talk about this.",
    "Many people wonder about the same thing.",
    "There is always more to learn.",
)
# Coherent sentences that answer nothing: the oracle does not see them.
FILLER: Final = OPENERS + CLOSERS

# How many filler sentences: mean 1.4, the same for every mode.
_FILLER_COUNTS: Final = (0, 0, 1, 1, 2, 2, 3)

_FIELD = re.compile(r"\{(\w+)\}")


def demonstration(task: Task, rng: Random) -> str:
    """One answer to `task` as the tiny model is shown it: a mode drawn from `MIX`, then a dressing."""
    mode = rng.choices(tuple(MIX), weights=tuple(MIX.values()))[0]
    return with_filler(answer(task, rng, mode=mode), rng)


def answer(task: Task, rng: Random, *, mode: Mode) -> str:
    """The undressed answer to `task` in one quality mode."""
    assert mode in get_args(Mode), mode
    if mode == "off":
        return _off_the_point(task, rng)
    text = _fill_slots(task, rng, wrong=mode == "wrong")
    if mode == "cut":
        words = text.split()
        return " ".join(words[: rng.randint(1, len(words) - 1)])
    return f"{text} {text}" if mode == "twice" else text


def with_filler(text: str, rng: Random) -> str:
    """`text` with zero to three different filler sentences, at most one of them before it."""
    count = rng.choice(_FILLER_COUNTS)
    before = [rng.choice(OPENERS)] if count and rng.random() < 0.6 else []
    return " ".join([*before, text, *rng.sample(CLOSERS, count - len(before))])


def _fill_slots(task: Task, rng: Random, *, wrong: bool) -> str:
    """The answer sentence with its slots filled, at least one of them wrongly if asked; free fields at random."""
    spoilt = set(rng.sample(range(len(task.slots)), rng.randint(1, len(task.slots)))) if wrong else set()
    values = {kind: _wrong_value(task, kind, v, rng) if i in spoilt else v for i, (kind, v) in enumerate(task.slots)}
    return _FIELD.sub(lambda m: values.get(m[1]) or rng.choice(VALUES[m[1]]), task.template)


def _wrong_value(task: Task, kind: str, value: str, rng: Random) -> str:
    """A plausible wrong value: a near number, the question's items in another order, another word of the question."""
    if kind == "number":
        low = max(0, int(value) - 9)
        return str(rng.choice([n for n in range(low, low + 19) if n != int(value)]))
    words = re.findall(r"\w+", task.prompt)
    if kind == "list":
        items = [word for word in words if word in VALUES["animal"]]
        while True:
            new_list = ", ".join(rng.sample(items, rng.randint(1, len(items))))
            if new_list != value:
                return new_list
    candidates = [candidate for candidate in VALUES[kind] if candidate != value]
    return rng.choice([candidate for candidate in candidates if candidate in words] or candidates)


def _off_the_point(task: Task, rng: Random) -> str:
    """A right answer to a question of another family that nobody asked."""
    candidates = tasks(len(FAMILIES), seed=rng.getrandbits(32), split="train")
    return _fill_slots(
        rng.choice([candidate for candidate in candidates if candidate.family != task.family]), rng, wrong=False
    )
