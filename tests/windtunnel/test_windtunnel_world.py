"""The world: pure, split by key, and right about its own answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable

from trimtab.windtunnel import FAMILIES, Split, Task, tasks
from trimtab.windtunnel.demonstrations import FILLER
from trimtab.windtunnel.values import COUNTRIES, ELEMENTS, PERSONAS, VALUES
from trimtab.windtunnel.world import FACT_FAMILIES, SPACE, in_split

SPLITS: tuple[Split, ...] = ("train", "pairs", "eval")


def test_tasks_are_a_pure_function_of_their_arguments() -> None:
    assert tasks(64, seed=3, split="eval") == tasks(64, seed=3, split="eval")
    assert tasks(64, seed=3, split="eval") != tasks(64, seed=4, split="eval")
    assert tasks(64, seed=3, split="eval")[:16] == tasks(16, seed=3, split="eval")


def test_families_come_in_turn_and_ids_are_unique() -> None:
    drawn = tasks(80, seed=0, split="pairs")
    assert Counter(t.family for t in drawn) == dict.fromkeys(FAMILIES, 10)
    assert len({t.id for t in drawn}) == 80


def test_pairs_and_eval_share_no_prompt_and_no_key_in_any_family() -> None:
    pairs, held_out = (tasks(1600, seed=1, split=split) for split in SPLITS[1:])
    assert not {t.prompt for t in pairs} & {t.prompt for t in held_out}
    assert not {(t.family, t.key) for t in pairs} & {(t.family, t.key) for t in held_out}


def test_training_prompts_are_held_out_where_the_rule_generalises() -> None:
    told = {t.prompt for t in tasks(1600, seed=1, split="train") if t.family not in FACT_FAMILIES}
    asked = {t.prompt for t in tasks(1600, seed=2, split="eval") if t.family not in FACT_FAMILIES}
    assert not told & asked


def test_every_fact_that_is_asked_was_told() -> None:
    for task in tasks(800, seed=0, split="eval"):
        assert in_split(task.family, task.key, "train") == (task.family in FACT_FAMILIES)


def test_stated_size_of_a_small_family_is_its_size() -> None:
    found = {t for split in SPLITS for t in tasks(8 * 400, seed=0, split=split)}
    assert {family: len({t.prompt for t in found if t.family == family}) for family in SPACE} == SPACE


def test_prompts_repeat_only_when_a_family_has_run_out() -> None:
    drawn = tasks(8 * 40, seed=0, split="eval")
    assert max(Counter(t.prompt for t in drawn).values()) == 1


def test_a_task_survives_json() -> None:
    for task in tasks(16, seed=0, split="eval"):
        assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_no_filler_names_a_value_that_an_answer_could_claim() -> None:
    values = {value for kind in VALUES.values() for value in kind}
    said = {word for filler in FILLER for word in re.findall(r"\w+", filler)}
    assert not said & values


def test_answers_follow_from_their_prompts() -> None:
    """Each answer recomputed from the prompt's words alone, by other code than the world's."""
    for task in tasks(800, seed=9, split="eval"):
        assert [value for _, value in task.slots] == _worked(task.family, task.prompt), task


def _worked(family: str, prompt: str) -> list[str]:
    words = re.findall(r"\w+", prompt)
    return WORKED[family](words)


def _in_brackets(words: list[str]) -> list[str]:
    operation, items = words[2], words[3:-1]
    return {"first": items[:1], "last": items[-1:], "reverse": items[::-1], "sort": sorted(items)}[operation]


def _sum(words: list[str]) -> int:
    a, b = int(words[2]), int(words[4])
    return {"plus": a + b, "minus": a - b, "times": a * b}[words[3]]


WORKED: dict[str, Callable[[list[str]], list[str]]] = {
    "writing": lambda w: [w[5], w[6], w[9]],
    "roleplay": lambda w: [PERSONAS[w[3]], w[5], w[8]],
    "reasoning": lambda w: list({w[0], w[5]} - {w[4], w[9]}),
    "math": lambda w: [str(_sum(w))],
    "coding": lambda w: [", ".join(_in_brackets(w))],
    "extraction": lambda w: w[w.index(w[-2]) + 2 :][:2],
    "stem": lambda w: [str(ELEMENTS[w[-1]]["symbol" not in w])],
    "humanities": lambda w: [COUNTRIES[w[-1]]["capital" not in w]],
}
