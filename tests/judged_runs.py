"""Run folders with answers laid by hand, and judge prompts of our own, for the tests of judging."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripted_server import Action, Seen, ok, preferring
from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config
from trimtab.judging.answer_files import TurnAnswers, fastchat_rows
from trimtab.progress import SilentReporter
from trimtab.records import Answer
from trimtab.runtime import set_up

COMPARING = """<|im_start|>system
You compare.
<|im_end|>
<|im_start|>user
Asked: {instruction}
[m]{output_1}[/m]
[M]{output_2}[/M]
Which?
<|im_end|>"""
MARKING = {
    "single-v1": "Q {question} A {answer}",
    "single-math-v1": "Q {question} R {ref_answer_1} A {answer}",
    "single-v1-multi-turn": "Q1 {question_1} A1 {answer_1} Q2 {question_2} A2 {answer_2}",
    "single-math-v1-multi-turn": "{question_1} {ref_answer_1} {answer_1} {question_2} {ref_answer_2} {answer_2}",
}


class Lines(SilentReporter):
    """A reporter that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str, /) -> None:
        self.said.append(line)


def texts(folder: Path) -> Path:
    """A folder for `benchmark.dir` with judge prompts of our own."""
    folder.mkdir(exist_ok=True)
    (folder / "alpaca_eval_clf.txt").write_text(COMPARING)
    rows = [
        {"name": name, "type": "single", "system_prompt": "You mark.", "prompt_template": template}
        for name, template in MARKING.items()
    ]
    (folder / "judge_prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def compared(tmp_path: Path, url: str, *, n: int = 12, published: bool = True, **judge: Any) -> Config:
    """A run whose models have answered `n` prompts: the baseline at length 10 + i, the aligned model one longer for
    even i and one shorter for odd i, the unaligned model always shorter."""
    prompts = [{"instruction": f"do {i}", "dataset": f"d{i % 2}"} for i in range(n)]
    said = {
        "baseline": ["b" * (10 + i) for i in range(n)],
        "aligned": ["a" * (10 + i + (1 if i % 2 == 0 else -1)) for i in range(n)],
        "unaligned": ["u" * (9 + i) for i in range(n)],
    }
    file = tmp_path / "prompts.json"
    baselines = ({"output": text, "generator": "published"} if published else {} for text in said["baseline"])
    store.write_json(file, [prompt | more for prompt, more in zip(prompts, baselines, strict=True)])
    config = _config(tmp_path, url, str(file), judge)
    folder = set_up(config).folder

    def lay(path: Path, who: str) -> None:
        rows = [
            Answer(one["instruction"], one["instruction"], text, who, one["dataset"]).to_json()
            for one, text in zip(prompts, said[who], strict=True)
        ]
        store.write_json(path, rows)

    lay(folder.answers("prompts"), "aligned")
    lay(folder.baseline_answers("prompts"), "baseline")
    if published:
        lay(folder.unaligned_answers("prompts"), "unaligned")
    return config


def marked(tmp_path: Path, url: str, *, n: int = 4, **judge: Any) -> Config:
    """A run whose models have answered `n` conversations of two turns."""
    file = tmp_path / "turns.jsonl"
    store.write_jsonl(
        file, [{"question_id": 81 + i, "category": "writing", "turns": [f"first {i}", f"then {i}"]} for i in range(n)]
    )
    config = _config(tmp_path, url, str(file), judge)
    folder = set_up(config).folder
    for path, who in (
        (folder.answers("turns", turns=True), "aligned"),
        (folder.unaligned_answers("turns", turns=True), "unaligned"),
    ):
        answers = [TurnAnswers(str(81 + i), (f"{who} {i}", f"{who} again {i}"), who) for i in range(n)]
        store.write_jsonl(path, fastchat_rows(answers, tstamp=0.0))
    return config


def _config(tmp_path: Path, url: str, benchmark: str, judge: dict[str, Any]) -> Config:
    return configuration.resolve(
        {
            "model": "windtunnel",
            "data": "windtunnel",
            "benchmark": {"name": benchmark, "dir": str(texts(tmp_path / "texts"))},
            "judge": {"name": "openai:judge", "canaries": 0} | judge,
            "base_url": url,
            "out": str(tmp_path / "run"),
        }
    )


def shown(seen: Seen) -> tuple[str, str]:
    """The two answers in the order in which the judge was shown them."""
    text = seen.text
    first = text.split("[m]", 1)[1].split("[/m]", 1)[0]
    return first, text.split("[M]", 1)[1].split("[/M]", 1)[0]


def longer(seen: Seen) -> Action:
    """A judge that is nine tenths sure that the longer answer is better."""
    first, second = shown(seen)
    return preferring(0.5 + 0.4 * ((len(first) > len(second)) - (len(first) < len(second))))


def longer_in_words(seen: Seen) -> Action:
    """The same judge behind a server without log-probabilities."""
    first, second = shown(seen)
    return ok("m" if len(first) > len(second) else "M")


def rows(config: Config, path: Path) -> Sequence[dict[str, Any]]:
    told: Sequence[dict[str, Any]] = store.read_json(path)
    return told
