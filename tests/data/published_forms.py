"""Small files in the column forms of published data sets, with texts of our own: ten sound rows or so, and a few at
fault, each with what must become of it. Counted by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]

QUESTIONS = (
    ("Where does the Danube end?", "In the Black Sea.", "In the Alps."),
    ("How many legs has a spider?", "Eight.", "Six, as all insects."),
    ("What is frozen water called?", "Ice.", "Steam"),
    ("Which day follows Monday?", "Tuesday.", "It depends on the week."),
    ("Name a colour of the sky.", "Blue, at noon.", "No."),
    ("What do bees make?", "Honey.", "Milk, mostly in spring."),
    ("Is nine an odd number?", "Yes.", "Nine is even."),
    ("What is the opposite of up?", "Down.", "Left."),
    ("Who writes a novel?", "A novelist.", "A plumber."),
    ("What has a shell and is slow?", "A snail.", "A train."),
)


@dataclass(frozen=True)
class Form:
    """A file, and what is to become of its rows.

    kept: pairs, or single responses, that are trained on or held out. dropped: reasons by the ids behind the file's
    name. notes: sentences that audit and report must have. model: `windtunnel`, or the family whose template is used.
    """

    rows: Sequence[Row]
    kept: int
    dropped: Mapping[str, str] = field(default_factory=dict)
    objective: str = "apo_hinge_zero"
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    model: str = "windtunnel"
    file: str = "rows.jsonl"

    def write(self, folder: Path) -> Path:
        path = folder / self.file
        is_list = path.suffix == ".json"
        lines = [json.dumps(row) for row in self.rows]
        path.write_text(f"[{', '.join(lines)}]" if is_list else "\n".join(lines) + "\n", encoding="utf-8")
        return path


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


# --- pairs ------------------------------------------------------------------------------------------------------------

TRL_PAIRS = [
    {"prompt": [user(question)], "chosen": [assistant(good)], "rejected": [assistant(bad)]}
    for question, good, bad in QUESTIONS
]
TRL_CONVERSATIONS = [
    {"chosen": [user(question), assistant(good)], "rejected": [user(question), assistant(bad)]}
    for question, good, bad in QUESTIONS
]
BINARIZED = [
    {
        "prompt": question,
        "prompt_id": f"{number:064x}",
        "chosen": [user(question), assistant(good)],
        "rejected": [user(question), assistant(bad)],
        "messages": [user(question), assistant(good)],
        "score_chosen": 8.5,
        "score_rejected": 4.0,
    }
    for number, (question, good, bad) in enumerate(QUESTIONS)
]
HH = [
    {
        "chosen": f"\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: {question}\n\nAssistant: {good}",
        "rejected": f"\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: {question}\n\nAssistant: {bad}",
    }
    for question, good, bad in QUESTIONS
]
LLAMA_FACTORY_PAIRS = [
    {
        "conversations": [{"from": "human", "value": question}],
        "chosen": {"from": "gpt", "value": good},
        "rejected": {"from": "gpt", "value": bad},
    }
    for question, good, bad in QUESTIONS
]
REWARD_BENCH = [
    {
        "prompt": question,
        "chosen": good,
        "chosen_model": "one",
        "rejected": bad,
        "rejected_model": "other",
        "subset": "plain",
        "id": number,
    }
    for number, (question, good, bad) in enumerate(QUESTIONS)
]

# --- single responses -------------------------------------------------------------------------------------------------

VERDICTS = [
    (question, (good, bad)[number % 2], number % 2 == 0) for number, (question, good, bad) in enumerate(QUESTIONS)
]
TRL_UNPAIRED = [{"prompt": question, "completion": answer, "label": label} for question, answer, label in VERDICTS]
KTO_TAG = [
    {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}], "kto_tag": label}
    for question, answer, label in VERDICTS
]
KTO_DEMO = [{"messages": [user(question), assistant(answer)], "label": label} for question, answer, label in VERDICTS]
KTO_ALPACA = [
    {"instruction": question, "input": "", "output": answer, "kto_tag": label} for question, answer, label in VERDICTS
]
LOG = [
    {"time": f"2026-01-{day:02}", "question": question, "answer": answer, "thumb": int(label)}
    for day, (question, answer, label) in enumerate(VERDICTS, 1)
]

# --- several responses ------------------------------------------------------------------------------------------------


def ultrafeedback(question: str, responses: Mapping[str, float]) -> Row:
    completions = [
        {
            "annotations": {"helpfulness": {"Rating": "4", "Rationale": "Clear."}},
            "custom_system_prompt": "Be helpful.",
            "model": f"model-{number}",
            "principle": "helpfulness",
            "response": text,
            "critique": "Could be longer.",
            "fine-grained_score": score,
            "overall_score": score,
        }
        for number, (text, score) in enumerate(responses.items())
    ]
    return {
        "source": "ours",
        "instruction": question,
        "models": [completion["model"] for completion in completions],
        "completions": completions,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


ULTRAFEEDBACK = [
    ultrafeedback(question, {good: 9.0, bad: 3.0, "I cannot say.": 5.0, "Good day.": 1.0})
    for question, good, bad in QUESTIONS[:8]
]
ULTRAFEEDBACK += [
    ultrafeedback("Which is the largest ocean?", {"The Pacific.": 7.0, "The Atlantic.": 7.0, "None.": 2.0}),
    ultrafeedback("Which is the smallest ocean?", {"The Arctic.": 6.0, "The Pacific.": 6.0}),
    ultrafeedback("Which ocean is warm?", {"The Indian Ocean.": 6.0}),
]


def nectar(question: str, ranks: Mapping[str, float]) -> Row:
    return {
        "prompt": f"\n\nHuman: {question}\n\nAssistant: ",
        "answers": [{"answer": text, "model": "some", "rank": rank} for text, rank in ranks.items()],
        "turns": 1,
        "num_responses": len(ranks),
        "source": ["ours"],
        "good_natured": True,
    }


NECTAR = [nectar(question, {bad: 3.0, good: 1.0, "I cannot say.": 2.0}) for question, good, bad in QUESTIONS]
NECTAR += [nectar("Which is the largest ocean?", {"The Pacific.": 1.0})]


def helpsteer(prompt: str, response: str, helpfulness: int | None) -> Row:
    marks = {"correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1}
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness} | marks


LONG_PROMPT = "Hello.\n<extra_id_1>Assistant\nHello! What is it?\n<extra_id_1>User\nWhich ocean is warm?"
HELPSTEER = [
    row for question, good, bad in QUESTIONS[:4] for row in (helpsteer(question, good, 4), helpsteer(question, bad, 1))
]
HELPSTEER += [
    helpsteer(LONG_PROMPT, "The Indian Ocean.", 3),
    helpsteer(LONG_PROMPT, "The Arctic Ocean.", 0),
    helpsteer("Which is the largest ocean?", "The Pacific.", 2),
    helpsteer("Which is the largest ocean?", "The Atlantic.", 2),
    helpsteer("Which is the smallest ocean?", "The Arctic.", 2),
]

REWARD_BENCH_2 = [
    {
        "id": str(number),
        "prompt": question,
        "chosen": [good],
        "rejected": [bad, "I cannot say.", "Good day."],
        "num_correct": 1,
        "num_incorrect": 3,
        "total_completions": 4,
        "models": ["a", "b", "c", "d"],
        "subset": "Factuality",
        "additional_metadata": {"category": "plain"},
    }
    for number, (question, good, bad) in enumerate(QUESTIONS[:8])
]
REWARD_BENCH_2 += [  # the subset of ties has several right answers
    REWARD_BENCH_2[0]
    | {"id": "8", "prompt": "Name a colour.", "chosen": ["Red.", "Blue."], "rejected": ["Seven.", "Tree."]},
]

LISTS = [
    {"prompt": [user(question)], "completions": [[assistant(good)], [assistant(bad)]], "scores": [0.9, 0.2]}
    for question, good, bad in QUESTIONS
]

# --- tools ------------------------------------------------------------------------------------------------------------

CITIES = ("Oslo", "Rome", "Bergen", "Lima", "Cairo", "Paris", "Quito", "Delhi", "Turin", "Basel")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def asks(city: str, **more: str) -> Row:
    call = {"type": "function", **more, "function": {"name": "get_weather", "arguments": {"city": city}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def cold(city: str) -> Row:
    return user(f"Is it cold in {city}?")


NEXT_CITY = dict(zip(CITIES, CITIES[1:] + CITIES[:1], strict=True))
CALLS = [  # the call itself is what is preferred
    {"prompt": [cold(city)], "chosen": [asks(city)], "rejected": [asks(NEXT_CITY[city])], "tools": [WEATHER]}
    for city in CITIES
]
RESULTS = [  # the answer behind a call and its result; ids as Mistral's template wants them
    {
        "messages": [cold(city), asks(city, id=f"call{number:05}"), {"role": "tool", "content": f"{number} degrees"}],
        "chosen": assistant(f"It has {number} degrees in {city}."),
        "rejected": assistant("I do not know."),
        "tools": json.dumps([WEATHER]),
    }
    for number, city in enumerate(CITIES)
]
WITHOUT_RESULT = CALLS[0] | {"prompt": [cold("Kyoto"), asks("Kyoto"), user("Well?")]}
LOOPS = [  # a response of several messages: call, result, answer
    {
        "prompt": [cold(city)],
        "chosen": [asks(city), {"role": "ipython", "content": f"{number} degrees"}, assistant(f"{number} degrees.")],
        "rejected": [assistant("I do not know.")],
        "tools": [WEATHER],
    }
    for number, city in enumerate(CITIES)
]
KEPT_TURNS = [  # agents with a verdict on the whole
    {
        "messages": [cold(city), asks(city), {"role": "tool", "content": f"{number} degrees"}, assistant(text)],
        "label": text != "No.",
        "tools": [WEATHER],
    }
    for number, city in enumerate(CITIES)
    for text in [("No.", f"{number} degrees.")[number % 2]]
]
ARGUMENTS = [  # SmolLM3's own words for tools and thinking
    {
        "prompt": [user(question)],
        "chosen": [assistant(good)],
        "rejected": [assistant(bad)],
        "chat_template_kwargs": {"enable_thinking": number % 2 == 0, "xml_tools": ["<get_weather/>"]},
    }
    for number, (question, good, bad) in enumerate(QUESTIONS)
]

UNPAIRED = "apo_hinge_zero_unpaired"
SPARE = ("--data.max-rejected", "0.5")
EMPTY = {"prompt": [user("Why?")], "chosen": [assistant("Because.")], "rejected": [assistant(" ")]}

FORMS: dict[str, Form] = {
    "TRL pairs of messages": Form(
        [*TRL_PAIRS, TRL_PAIRS[2], EMPTY], 10, {"11": "duplicate", "12": "empty_response"}, words=SPARE
    ),
    "TRL conversations": Form(
        [*TRL_CONVERSATIONS, {"chosen": [user("A?"), assistant("a")], "rejected": [user("B?"), assistant("b")]}],
        10,
        {"11": "prompt_mismatch"},
        words=SPARE,
    ),
    "UltraFeedback binarized": Form(
        BINARIZED, 10, objective="odpo", notes=("columns not read: prompt_id, messages",)
    ),
    "HH-RLHF": Form([*HH, {"chosen": HH[0]["chosen"], "rejected": "\n\nHuman: Hello."}], 10, {"11": "wrong_roles"},
                    words=SPARE),
    "LLaMA-Factory pairs": Form(LLAMA_FACTORY_PAIRS, 10, file="rows.json"),
    "RewardBench": Form(REWARD_BENCH, 10),
    "TRL unpaired": Form(
        [*TRL_UNPAIRED, TRL_UNPAIRED[0] | {"label": "perhaps"}, TRL_UNPAIRED[1] | {"label": True}],
        9,
        {"2": "contradictory", "11": "no_label", "12": "contradictory"},
        objective="kto",
        words=SPARE,
    ),
    "LLaMA-Factory kto_tag": Form(
        [*KTO_TAG, KTO_TAG[3] | {"kto_tag": None}], 10, {"11": "no_label"}, objective=UNPAIRED, words=SPARE,
    ),
    "LLaMA-Factory kto demo": Form(KTO_DEMO, 10, objective=UNPAIRED, file="rows.json"),
    "LLaMA-Factory kto alpaca": Form(KTO_ALPACA, 10, objective="apo_zero_unpaired"),
    "log of verdicts": Form(
        [*LOG, LOG[0] | {"answer": ""}],
        10,
        {"11": "empty_response"},
        objective=UNPAIRED,
        words=(*SPARE, "--columns", "prompt=question,completion=answer,label=thumb"),
    ),
    # eight prompts of four scores: 48 pairs; one of three with a tie: 2; one of equal scores, one of a single response
    "UltraFeedback": Form(
        ULTRAFEEDBACK,
        50,
        {"10": "no_preference", "11": "one_response"},
        words=SPARE,
        notes=(
            "11 prompts with scored responses made 50 pairs (all); 2 ties",
            "columns not read: source, models, correct_answers, incorrect_answers, completions.annotations, "
            "completions.custom_system_prompt, completions.model, completions.principle, completions.critique, "
            "completions.fine-grained_score",
        ),
    ),
    "Nectar": Form(
        NECTAR,
        30,
        {"11": "one_response"},
        words=SPARE,
        notes=(
            "11 prompts with scored responses made 30 pairs (all); 0 ties",
            "columns not read: turns, num_responses, source, good_natured, answers.model",
        ),
    ),
    # the last three rows are a tie and a response alone
    "HelpSteer2": Form(
        HELPSTEER,
        5,
        {"11..12": "no_preference", "13": "one_response"},
        objective="odpo",
        words=SPARE,
        notes=("7 prompts with scored responses made 5 pairs (all); 1 tie",),
    ),
    # eight times three wrong answers of equal score below one: three ties each; two right ones above two wrong ones
    "RewardBench 2": Form(
        REWARD_BENCH_2,
        28,
        notes=("9 prompts with scored responses made 28 pairs (all); 26 ties",),
    ),
    "lists of scores": Form(LISTS, 10, objective="odpo", words=("--data.pairs", "best_worst")),
    "calls, Qwen3": Form([*CALLS, WITHOUT_RESULT], 10, {"11": "wrong_roles"}, words=SPARE, model="qwen3"),
    "results, Llama 3.2": Form(RESULTS, 10, model="llama32"),
    "results, Mistral": Form([*RESULTS, CALLS[0]], 10, {"11": "malformed"}, words=SPARE, model="mistral"),
    "responses of several messages": Form(LOOPS, 10, model="llama32"),
    "labelled transcripts of tools": Form(KEPT_TURNS, 10, objective=UNPAIRED, model="llama32"),
    "arguments of the template": Form(ARGUMENTS, 10, model="smollm3"),
}  # fmt: skip
