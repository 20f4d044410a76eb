"""The oracle's arithmetic, worked by hand.  total = coherence · (0.85 · correctness + 0.15 · format)"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.windtunnel import FAMILIES, Task, score, tasks
from trimtab.windtunnel.demonstrations import FILLER, MIX, answer
from trimtab.windtunnel.world import luck

SAMPLE = tasks(8, seed=0, split="eval")
ONE = {family: next(t for t in SAMPLE if t.family == family) for family in FAMILIES}


def _task(family: str, prompt: str, template: str, *slots: tuple[str, str], echo: str = "") -> Task:
    return Task(f"{family}-0", family, prompt, prompt, template, slots, echo)


WRITING = _task(
    "writing",
    "Write a sentence about a lazy fox near the river.",
    "The {adjective} {animal} {verb} near the {place}.",
    ("adjective", "lazy"),
    ("animal", "fox"),
    ("place", "river"),
)
ROLEPLAY = _task(
    "roleplay",
    "You are a pirate. Greet Ann in the morning.",
    "{greeting}, {name}, good {daytime} to you!",
    ("greeting", "Arr"),
    ("name", "Ann"),
    ("daytime", "morning"),
)
REASONING = _task("reasoning", "Who is the tallest?", "{name} is the tallest.", ("name", "Ann"))
MATH = _task("math", "What is 7 plus 5?", "7 plus 5 is {number}.", ("number", "12"), echo="7 plus 5")
CODING = _task(
    "coding",
    "What does reverse([cat, dog]) return?",
    "It returns [{list}].",
    ("list", "dog, cat"),
    echo="reverse([cat, dog])",
)
EXTRACTION = _task(
    "extraction",
    "What does Ben have?",
    "Ben has {count} {object}.",
    ("count", "5"),
    ("object", "hats"),
)
STEM = _task("stem", "What is the symbol of iron?", "The symbol of iron is {symbol}.", ("symbol", "Fe"))
HUMANITIES = _task(
    "humanities", "What is the capital of Peru?", "The capital of Peru is {capital}.", ("capital", "Lima")
)

# task, response, correctness, format, coherence
CASES = [
    # writing: three slots, a free verb
    (WRITING, "The lazy fox sings near the river.", 1, 1, 1),
    (WRITING, "The lazy cat sings near the river.", 2 / 3, 1, 1),
    (WRITING, "The lazy fox", 2 / 3, 0, 0.5),
    (WRITING, "lazy fox, river", 1, 0, 1),  # nothing but the values asked for: bare
    (WRITING, "The lazy fox sings near", 2 / 3, 0, 0.5),
    (WRITING, "The lazy fox sings near the river. The lazy fox sings near the river.", 1, 1, 0.5),
    (WRITING, "The lazy fox sings near the river. The lazy cat sings near the river.", 2 / 3, 1, 0.5),
    (WRITING, "7 plus 5 is 12.", 0, 0, 0.5),
    # roleplay
    (ROLEPLAY, "Arr, Ann, good morning to you!", 1, 1, 1),
    (ROLEPLAY, "Beep, Ann, good morning to you!", 2 / 3, 1, 1),
    (ROLEPLAY, "Arr, Ann, good", 2 / 3, 0, 0.5),
    (ROLEPLAY, "Arr, Ann, good morning to you! Arr, Ann, good morning to you!", 1, 1, 0.5),
    (ROLEPLAY, "Ann is the tallest.", 1 / 3, 0, 0.5),
    # reasoning
    (REASONING, "Ann is the tallest.", 1, 1, 1),
    (REASONING, "Ann.", 1, 0, 1),
    (REASONING, "Ben is the tallest.", 0, 1, 1),
    (REASONING, "Ann is the", 1, 0, 0.5),
    (REASONING, "Ann is the tallest. Ben is the tallest.", 0, 1, 0.5),
    (REASONING, "Ann, Ben, Cal.", 0, 0, 0.5),
    # math
    (MATH, "7 plus 5 is 12.", 1, 1, 1),
    (MATH, "12", 1, 0, 1),
    (MATH, "7 plus 5 is 13.", 0, 1, 1),
    (MATH, "7 plus 5 is", 0, 0, 0.5),
    (MATH, "7 plus 5 is 1", 0, 0, 0.5),
    (MATH, "7 plus 5 is 12. 7 plus 5 is 12.", 1, 1, 0.5),
    (MATH, "7 plus 5 is 12. 7 plus 5 is 13.", 0, 1, 0.5),
    (MATH, "10. 11. 12. 13.", 0, 0, 0.5),
    (MATH, "7 plus 6 is 12.", 0, 0, 0.25),  # another question's sum: three numbers named, and no sentence of this task
    # coding
    (CODING, "It returns [dog, cat].", 1, 1, 1),
    (CODING, "[dog, cat]", 1, 0, 1),
    (CODING, "reverse([cat, dog]) returns [dog, cat].", 1, 0, 0.5),
    (CODING, "It returns [cat, dog].", 0, 1, 1),
    (CODING, "It returns [dog,", 0, 0, 0.5),
    (CODING, "It returns [dog, cat]. It returns [cat, dog].", 0, 1, 0.5),
    (CODING, "Lima.", 0, 0, 0.5),
    # extraction
    (EXTRACTION, "Ben has 5 hats.", 1, 1, 1),
    (EXTRACTION, "Ben has 5 cups.", 1 / 2, 1, 1),
    (EXTRACTION, "5 hats", 1, 0, 1),
    (EXTRACTION, "Ben has 5 hats. Ben has 3 cups.", 0, 1, 0.5),
    (EXTRACTION, "Ben has 5", 1 / 2, 0, 0.5),
    (EXTRACTION, "The capital of Peru is Lima.", 0, 0, 0.5),
    # stem
    (STEM, "The symbol of iron is Fe.", 1, 1, 1),
    (STEM, "The symbol of iron is Au.", 0, 1, 1),
    (STEM, "The symbol of", 0, 0, 0.5),
    (STEM, "The symbol of iron is Fe. The symbol of iron is Fe. The symbol of iron is Fe.", 1, 1, 0.25),
    (STEM, "Fe, Au, Ag, Pb", 0, 0, 0.5),
    # humanities
    (HUMANITIES, "The capital of Peru is Lima.", 1, 1, 1),
    (HUMANITIES, "The capital of Peru is Lima", 1, 0, 0.5),
    (HUMANITIES, "The capital of Peru is Rome.", 0, 1, 1),
    (HUMANITIES, "The capital of", 0, 0, 0.5),
    (HUMANITIES, "The capital of Peru is Lima. The capital of Peru is Rome.", 0, 1, 0.5),
    (HUMANITIES, "The lazy fox sings near the river.", 0, 0, 0.5),
    # no answer at all
    (MATH, "", 0, 0, 0),
    (MATH, " \n ", 0, 0, 0),
    (MATH, "I hope this helps.", 0, 0, 1),
    (MATH, "I hope this helps. I hope this helps.", 0, 0, 0.5),
    # padding: the same score as without; said twice, the padding is a defect
    (MATH, "Sure, glad to help. 7 plus 5 is 12. Have a nice day. I hope this helps.", 1, 1, 1),
    (MATH, "Of course. 7 plus 5 is 12. Have a nice day. Have a nice day.", 1, 1, 0.5),
    (MATH, "7 plus 5 is I hope this helps.", 0, 0, 0.5),
]


@pytest.mark.parametrize(("task", "response", "correctness", "form", "coherence"), CASES)
def test_worked_by_hand(task: Task, response: str, correctness: float, form: float, coherence: float) -> None:
    found = score(task, response)
    assert (found.correctness, found.format, found.coherence) == pytest.approx((correctness, form, coherence))
    assert found.total == pytest.approx(coherence * (0.85 * correctness + 0.15 * form))


@pytest.mark.parametrize("family", FAMILIES)
def test_modes_stand_in_order_in_every_family(family: str) -> None:
    rng, drawn = luck(0), [t for t in tasks(8 * 60, seed=5, split="eval") if t.family == family]
    mean = {mode: sum(score(t, answer(t, rng, mode=mode)).total for t in drawn) / len(drawn) for mode in MIX}
    assert mean["right"] == 1.0
    assert mean["twice"] == 0.5
    assert 0.1 < mean["wrong"] < 0.7
    assert mean["cut"] < 0.65  # "Ann is the" has named the right one
    assert mean["off"] < 0.2


@pytest.mark.parametrize("family", FAMILIES)
def test_listing_candidates_never_beats_one_guess(family: str) -> None:
    """Two answers in the asked form, the right one among them or not, are worth half a right one at the very most."""
    task, rng = ONE[family], luck(1)
    guesses = {answer(task, rng, mode="wrong") for _ in range(20)}
    right = answer(task, rng, mode="right")
    guess = score(task, right).total
    for pair in itertools.combinations([right, *sorted(guesses)[:6]], 2):
        assert score(task, " ".join(pair)).total <= 0.5 * guess


PADDING = st.lists(st.sampled_from(FILLER), unique=True, max_size=10)


@settings(max_examples=300, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    mode=st.sampled_from(sorted(MIX)),
    seed=st.integers(0, 2**32),
    padding=PADDING,
    split_at=st.integers(0, 10),
)
def test_blind_to_length(family: str, mode: str, seed: int, padding: list[str], split_at: int) -> None:
    """Coherent filler before and after an answer of any quality changes nothing, however much of it there is."""
    task = ONE[family]
    text = answer(task, luck(seed), mode=mode)  # type: ignore[arg-type]  # sampled from the modes
    padded = " ".join([*padding[:split_at], text, *padding[split_at:]])
    assert score(task, padded) == score(task, text)


@settings(max_examples=300, deadline=None)
@given(family=st.sampled_from(FAMILIES), text=st.text(max_size=80))
def test_any_text_has_a_score_in_range(family: str, text: str) -> None:
    found = score(ONE[family], text)
    assert all(0.0 <= part <= 1.0 for part in (found.correctness, found.format, found.coherence, found.total))
    assert found.total <= found.coherence
