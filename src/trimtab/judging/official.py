"""The benchmarks that people compare models on, from their official texts: AlpacaEval 1 and 2, and MT-Bench."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from trimtab.errors import DataError
from trimtab.judging.annotations import read_difficulty, read_gamed
from trimtab.judging.answer_files import read_references
from trimtab.judging.benchmarks import Benchmark, Prompt, read_benchmark
from trimtab.judging.mt_bench_grading import CATEGORIES_WITH_REFERENCE, JudgePrompts, read_judge_prompts
from trimtab.judging.official_texts import Source, Text, TextFile, TextMissingError
from trimtab.judging.rubrics import Rubric, RubricName, make

Name = Literal["alpaca_eval", "alpaca_eval_1", "mt_bench"]
Part = Literal["prompts", "judge", "length"]

# Where each lies, at a commit that does not move; checked against the sha256 whatever is found there
_HUB = "https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/2edc6fad8be6b14ea7230aabfd08188da6b8b814"
_ALPACA_EVAL = "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
_FASTCHAT = "https://raw.githubusercontent.com/lm-sys/FastChat/587d5cfa1609a43d192cedb8441cac3c17db105d"
_CONFIGS = f"{_ALPACA_EVAL}/src/alpaca_eval/evaluators_configs"
_LLM_JUDGE = f"{_FASTCHAT}/fastchat/llm_judge/data"

BASELINE_2 = Text(
    "AlpacaEval 2's baseline",
    f"{_HUB}/alpaca_eval_gpt4_baseline.json",
    "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
    (
        "alpaca_eval_gpt4_baseline.json",
        "reference_outputs_ae2_gpt4_1106_preview.json",
        "results/gpt4_1106_preview/model_outputs.json",
    ),
    n_bytes=1_899_765,
    rows="f3b049aa429db02ea022f5e8007187f2d28b6e5369c9f97ec965c3c8f7c3cb91",
)
# `results/text_davinci_003/model_outputs.json` of AlpacaEval's repository is another set of answers, not this baseline
BASELINE_1 = Text(
    "AlpacaEval 1's baseline",
    f"{_HUB}/alpaca_eval.json",
    "d92b92c51e8f1962a21193abe74e6f727c2bc8286035f4041505ff38a7c3ae51",
    ("alpaca_eval.json", "reference_outputs_ae1_text_davinci_003.json"),
    n_bytes=620_778,
    rows="775ca284ceee6d2357ded5673af173ec6a2251f1fc10f4491e8f89644395c9f9",
)
DIFFICULTY = Text(
    "the instructions' difficulty",
    f"{_HUB}/instruction_difficulty.csv",
    "e28d875bb334f75e17acd1e4ed659b261860e3db379cf5de29060301bed0a18b",
    ("instruction_difficulty.csv", "instruction_difficulty_recovered.csv"),
)
GAMED = Text(
    "the regularising rows",
    f"{_HUB}/df_gamed.csv",
    "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
    ("df_gamed.csv", "df_gamed_reconstructed.csv"),
)
CLASSIFIER_PROMPT = Text(
    "AlpacaEval 2's judge prompt",
    f"{_CONFIGS}/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt",
    "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62",
    ("alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt", "alpaca_eval_clf.txt"),
)
RANKING_PROMPT = Text(
    "AlpacaEval 1's judge prompt",
    f"{_CONFIGS}/alpaca_eval_gpt4/alpaca_eval.txt",
    "cf4bace43fa6ac71944b9ca2506587ad7c509478a219e98a3950abf9d5b42a98",
    ("alpaca_eval_gpt4/alpaca_eval.txt", "alpaca_eval.txt"),
)
QUESTIONS = Text(
    "MT-Bench's questions",
    f"{_LLM_JUDGE}/mt_bench/question.jsonl",
    "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    ("mt_bench/question.jsonl", "question.jsonl"),
    n_bytes=48_929,
)
REFERENCES = Text(
    "MT-Bench's reference answers",
    f"{_LLM_JUDGE}/mt_bench/reference_answer/gpt-4.jsonl",
    "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
    ("mt_bench/reference_answer/gpt-4.jsonl", "reference_answer/gpt-4.jsonl"),  # not any gpt-4.jsonl: answers have it
)
JUDGE_PROMPTS = Text(
    "MT-Bench's judge prompts",
    f"{_LLM_JUDGE}/judge_prompts.jsonl",
    "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    ("llm_judge/data/judge_prompts.jsonl", "judge_prompts.jsonl"),
)

_TEXTS: Mapping[Name, Mapping[Part, Sequence[Text]]] = {
    "alpaca_eval": {"prompts": [BASELINE_2], "judge": [CLASSIFIER_PROMPT], "length": [DIFFICULTY, GAMED]},
    "alpaca_eval_1": {"prompts": [BASELINE_1], "judge": [RANKING_PROMPT], "length": [DIFFICULTY, GAMED]},
    "mt_bench": {"prompts": [QUESTIONS, REFERENCES], "judge": [JUDGE_PROMPTS], "length": []},
}


@dataclass(frozen=True, slots=True)
class LengthTables:
    """What AlpacaEval's length control needs beside the verdicts: one difficulty for each instruction in the official
    order, and the regularising rows by column. None where a table cannot be had; `notes` say why, and which of them is
    not official. AlpacaEval 1 is controlled with the same tables, which were made for 2.
    """

    difficulty: list[float] | None
    gamed: dict[str, list[float]] | None
    notes: tuple[str, ...] = ()
    texts: Mapping[str, TextFile] = field(default_factory=dict)


def names() -> tuple[Name, ...]:
    """The benchmarks that are known by name."""
    return get_args(Name)


def texts(name: Name, *, source: Source, part: Part | None = None) -> dict[str, TextFile]:
    """Every official text of a benchmark, or of one part of it, by name. Raises as `Source.find`."""
    parts = _TEXTS[name]
    selection = [text for of_part in ([parts[part]] if part else parts.values()) for text in of_part]
    return {text.name: source.find(text) for text in selection}


def benchmark(name: Name, *, source: Source) -> Benchmark:
    """The prompts in their official order: AlpacaEval's with the baseline's answers, MT-Bench's with two turns and,
    for math, reasoning and coding, GPT-4's reference answers. Raises as `Source.find`, DataError for a damaged file.
    """
    if name == "mt_bench":
        return _mt_bench(source)
    baseline = source.find(BASELINE_2 if name == "alpaca_eval" else BASELINE_1)
    prompts = read_benchmark(baseline.path, name=name)
    if not prompts.has_baseline:
        raise DataError(f"{baseline.path} has no baseline answers", remedy="give rows with 'instruction' and 'output'")
    return prompts


def official_rubric(name: Name) -> RubricName:
    """The way of asking that a benchmark's leaderboard was made with."""
    return "ranking" if name == "alpaca_eval_1" else "weighted"


def rubric_text(name: RubricName) -> Text:
    """The official prompt that a rubric asks with."""
    return RANKING_PROMPT if name == "ranking" else CLASSIFIER_PROMPT


def rubric(name: RubricName, *, source: Source) -> Rubric:
    """A rubric with its official prompt, for any benchmark of single questions. Raises as `Source.find`."""
    return make(name, _read_text(source.find(rubric_text(name))))


def judge_prompts(*, source: Source) -> JudgePrompts:
    """MT-Bench's prompts for grading single answers. Raises as `Source.find`, DataError for a damaged file."""
    return read_judge_prompts(source.find(JUDGE_PROMPTS).path)


def length_tables(name: Name, *, source: Source, without: Collection[Text] = ()) -> LengthTables:
    """The tables of length control, as far as they can be had; MT-Bench has none. `without` are not looked for.

    Raises DataError for other bytes.
    """
    files: dict[Text, TextFile] = {}
    notes = []
    for text in (text for text in _TEXTS[name]["length"] if text not in without):
        try:
            files[text] = source.find(text)
        except TextMissingError as error:
            notes.append(f"{error.message}; length control does without it")
    notes += [file.note for file in files.values() if file.note]
    return LengthTables(
        difficulty=read_difficulty(files[DIFFICULTY].path) if DIFFICULTY in files else None,
        gamed=read_gamed(files[GAMED].path) if GAMED in files else None,
        notes=tuple(notes),
        texts={text.name: file for text, file in files.items()},
    )


def _mt_bench(source: Source) -> Benchmark:
    """The `reference` texts in the question file itself are notes of its authors, which no judge is shown."""
    references_text = source.find(REFERENCES)
    references = read_references(references_text.path)
    questions = read_benchmark(source.find(QUESTIONS).path, name="mt_bench")

    def with_reference(prompt: Prompt) -> Prompt:
        if prompt.dataset not in CATEGORIES_WITH_REFERENCE:
            return replace(prompt, reference=())
        answers = references.get(prompt.id, ())
        if len(answers) != len(prompt.turns):
            raise DataError(
                f"{references_text.path} has {len(answers)} reference answers to question {prompt.id} "
                f"({prompt.dataset}), which has {len(prompt.turns)} turns",
                remedy="give the reference answers that go with these questions",
            )
        return replace(prompt, reference=answers)

    return Benchmark("mt_bench", tuple(with_reference(prompt) for prompt in questions.prompts))


def _read_text(location: TextFile) -> str:
    try:
        return location.path.read_bytes().decode("utf-8")  # as it is: line ends count in its digest
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{location.path} cannot be read: {error}", remedy="give the official file") from error
