"""The closed world: eight task families that mirror MT-Bench's categories, each with one knowable right answer.

A `Task` says what a right answer is without any model: a `template` of the answer sentence and, for every `slot` of it,
the one right value. The oracle and the demonstrations are written over templates and slots, never over families.

    writing     Write a sentence about a lazy fox near the river.     The lazy fox sleeps near the river.
    roleplay    You are a pirate. Greet Ann in the morning.           Arr, Ann, good morning to you!
    reasoning   Ann is taller than Ben. Ben is taller than Cal.
                Who is the tallest?                                   Ann is the tallest.
    math        What is 7 plus 5?                                     7 plus 5 is 12.
    coding      What does reverse([cat, dog]) return?                 It returns [dog, cat].
    extraction  Ann has 3 cups. Ben has 5 hats.
                What does Ben have?                                   Ben has 5 hats.
    stem        What is the symbol of iron?                           The symbol of iron is Fe.
    humanities  What is the capital of Peru?                          The capital of Peru is Lima.

Splits. A task's `key` is hashed into one of four buckets. `pairs` and `eval` never share a key, in any family. `train`
(the tiny model's own supervised training) is disjoint from both in the families whose rule generalises; in math, stem
and humanities it holds every key, because a fact that was never told cannot be known. Those three are also small
(`SPACE` counts prompts), so what is held out there is the prompt from alignment, not the fact from the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal

from trimtab.windtunnel.values import COUNTRIES, ELEMENTS, PERSONAS, VALUES

Split = Literal["train", "pairs", "eval"]

FAMILIES: Final = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")

# Families whose facts the model must have been told: `train` covers all of their keys.
FACT_FAMILIES: Final = frozenset({"math", "stem", "humanities"})

# Prompts in the families that are small enough to run out; the others have from 1,728 to 1.5 million.
SPACE: Final[Mapping[str, int]] = {"math": 151, "stem": 112, "humanities": 128, "roleplay": 480}


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt and what a right answer to it is.

    `template` is the answer sentence with `{kind}` fields. `slots` gives the right value of each field that has one, as
    (kind, value); a field without a slot is free (any value of its kind is as good). `echo` is the part of the
    question that an answer may repeat without claiming anything. `key` decides the split.
    """

    id: str
    family: str
    prompt: str
    key: str
    template: str
    slots: tuple[tuple[str, str], ...]
    echo: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "family": self.family,
            "prompt": self.prompt,
            "key": self.key,
            "template": self.template,
            "slots": [list(slot) for slot in self.slots],
            "restated": self.echo,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Task:
        slots = tuple((kind, value) for kind, value in row["slots"])
        return cls(row["id"], row["family"], row["prompt"], row["key"], row["template"], slots, row["restated"])


# prompt, key, template, slots, echo
_Draft = tuple[str, str, str, tuple[tuple[str, str], ...], str]


def _draw_writing(rng: Random) -> _Draft:
    adjective, animal, place = (rng.choice(VALUES[kind]) for kind in ("adjective", "animal", "place"))
    prompt = f"Write a sentence about a {adjective} {animal} near the {place}."
    slots = (("adjective", adjective), ("animal", animal), ("place", place))
    return prompt, prompt, "The {adjective} {animal} {verb} near the {place}.", slots, ""


def _draw_roleplay(rng: Random) -> _Draft:
    persona, name, daytime = rng.choice(tuple(PERSONAS)), rng.choice(VALUES["name"]), rng.choice(VALUES["daytime"])
    prompt = f"You are a {persona}. Greet {name} in the {daytime}."
    slots = (("greeting", PERSONAS[persona]), ("name", name), ("daytime", daytime))
    return prompt, prompt, "{greeting}, {name}, good {daytime} to you!", slots, ""


def _draw_reasoning(rng: Random) -> _Draft:
    x, y, z = rng.sample(VALUES["name"], 3)
    stem = rng.choice(("tall", "old", "fast"))
    facts = [f"{x} is {stem}er than {y}.", f"{y} is {stem}er than {z}."]
    rng.shuffle(facts)
    prompt = f"{' '.join(facts)} Who is the {stem}est?"
    return prompt, prompt, f"{{name}} is the {stem}est.", (("name", x),), ""


def _draw_math(rng: Random) -> _Draft:
    operation = rng.choice(("plus", "minus", "times"))
    top = 6 if operation == "times" else 10
    a, b = rng.randint(2, top), rng.randint(2, top)
    if operation == "minus":
        a, b = max(a, b), min(a, b)
    value = {"plus": a + b, "minus": a - b, "times": a * b}[operation]
    expression = f"{a} {operation} {b}"
    return f"What is {expression}?", expression, f"{expression} is {{number}}.", (("number", str(value)),), expression


def _draw_coding(rng: Random) -> _Draft:
    items = rng.sample(VALUES["animal"], rng.choice((2, 3)))
    operations: dict[str, Callable[[list[str]], list[str]]] = {
        "first": lambda x: x[:1],
        "last": lambda x: x[-1:],
        "reverse": lambda x: x[::-1],
        "sort": sorted,
    }
    name = rng.choice(tuple(operations))
    call = f"{name}([{', '.join(items)}])"
    value = ", ".join(operations[name](items))
    return f"What does {call} return?", call, "It returns [{list}].", (("list", value),), call


def _draw_extraction(rng: Random) -> _Draft:
    names = rng.sample(VALUES["name"], 2)
    kinds = ("count", "object")
    things = list(zip(*(rng.sample(VALUES[kind], 2) for kind in kinds), strict=True))
    index = rng.randrange(2)
    facts = " ".join(f"{name} has {' '.join(thing)}." for name, thing in zip(names, things, strict=True))
    prompt = f"{facts} What does {names[index]} have?"
    slots = tuple(zip(kinds, things[index], strict=True))
    return prompt, prompt, f"{names[index]} has {{count}} {{object}}.", slots, ""


def _draw_stem(rng: Random) -> _Draft:
    element = rng.choice(tuple(ELEMENTS))
    symbol, number = ELEMENTS[element]
    fact, slot = rng.choice((("symbol", ("symbol", symbol)), ("atomic number", ("number", str(number)))))
    about = f"the {fact} of {element}"
    prompt = rng.choice((f"What is {about}?", f"Tell me {about}."))
    return prompt, about, f"The {fact} of {element} is {{{slot[0]}}}.", (slot,), ""


def _draw_humanities(rng: Random) -> _Draft:
    country = rng.choice(tuple(COUNTRIES))
    capital, continent = COUNTRIES[country]
    fact, slot = rng.choice((("capital", ("capital", capital)), ("continent", ("continent", continent))))
    about = f"the {fact} of {country}"
    prompt = rng.choice((f"What is {about}?", f"Tell me {about}."))
    return prompt, about, f"The {fact} of {country} is {{{slot[0]}}}.", (slot,), ""


_DRAW: Final[Mapping[str, Callable[[Random], _Draft]]] = {
    "writing": _draw_writing,
    "roleplay": _draw_roleplay,
    "reasoning": _draw_reasoning,
    "math": _draw_math,
    "coding": _draw_coding,
    "extraction": _draw_extraction,
    "stem": _draw_stem,
    "humanities": _draw_humanities,
}


def luck(*words: object) -> Random:
    """A generator seeded by words: the same on every machine and Python version, and no one else's."""
    return Random(" ".join(str(word) for word in words))  # noqa: S311  # repeatable on purpose, nothing is secret


def in_split(family: str, key: str, split: Split) -> bool:
    """Whether tasks with this key belong to `split`. `pairs` and `eval` are disjoint; see the module's docstring."""
    bucket = hashlib.sha256(f"{family}\n{key}".encode()).digest()[0] % 4
    if family in FACT_FAMILIES:
        return {"train": True, "pairs": bucket < 2, "eval": bucket >= 2}[split]
    return bucket in {"train": (0, 1), "pairs": (2,), "eval": (3,)}[split]


def tasks(n: int, *, seed: int, split: Split) -> tuple[Task, ...]:
    """`n` tasks of one split, the families in turn. A pure function of its arguments.

    No prompt comes twice while its family still has unused ones in the split (about 50 to 130 in the small families).
    """
    rng = luck("trimtab world", split, seed)
    prompts: set[str] = set()
    result: list[Task] = []
    for index in range(n):
        family = FAMILIES[index % len(FAMILIES)]
        draft = _draw(family, rng, split=split, prompts=prompts)
        prompts.add(draft[0])
        result.append(Task(f"{family}-{split}-{seed}-{index:05d}", family, *draft))
    return tuple(result)


def _draw(family: str, rng: Random, *, split: Split, prompts: set[str]) -> _Draft:
    """A draft in `split`, preferring a prompt not in `prompts`; gives up on that after 100 repeats."""
    repeats = 0
    while True:
        draft = _DRAW[family](rng)
        if not in_split(family, draft[1], split):
            continue
        if draft[0] not in prompts or repeats >= 100:
            return draft
        repeats += 1
