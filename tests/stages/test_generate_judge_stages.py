"""Generate and judge: answers in AlpacaEval's form, judges that keep their word."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stage_runs import Recorder
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.config import Config
from trimtab.errors import ConfigError, DataError
from trimtab.judging.annotations import read_annotations
from trimtab.judging.benchmarks import read_benchmark
from trimtab.judging.verdicts import canaries, judge_answers
from trimtab.records import Answer, Verdict
from trimtab.runtime import set_up
from trimtab.runtime.benchmark_prompts import evaluation_tasks
from trimtab.runtime.folder import Folder
from trimtab.runtime.judges import windtunnel_judges
from trimtab.stages import generate, judge, report
from trimtab.windtunnel import demonstrations

INSTRUCTIONS = ["Write a sentence about a cat.", "What is 2 plus 3?", "Greet Kim."]


def a_config(out: Path, benchmark: Path | str, **sections: Any) -> Config:
    tree: dict[str, Any] = {
        "model": "windtunnel",
        "data": "windtunnel",
        "benchmark": {"name": str(benchmark)},
        "out": str(out),
        "windtunnel": {"prompts": 24},
        "generate": {"max_new_tokens": 24, "temperature": 1.0},
        "engine": {"device": "cpu", "threads": 1},
    }
    return configuration.resolve(configuration.merge(tree, sections))


def answered(config: Config) -> tuple[Folder, Recorder]:
    """A trained folder (the shipped model stands in for the aligned one), then generate."""
    import shutil

    folder, reporter = set_up(config).folder, Recorder()
    if not folder.model.exists():
        shutil.copytree(windtunnel.model_folder(), folder.model)
    generate.main(set_up(config), reporter=reporter)
    return folder, reporter


def prompts_file(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_prompts_of_a_file_are_answered_by_both_models(tmp_path: Path) -> None:
    source = prompts_file(tmp_path / "mine.jsonl", [{"instruction": text, "dataset": "own"} for text in INSTRUCTIONS])
    config = a_config(tmp_path / "run", source)
    folder, reporter = answered(config)
    before, after = (store.read_json(path) for path in (folder.baseline_answers("mine"), folder.answers("mine")))
    assert [row["instruction"] for row in before] == [row["instruction"] for row in after] == INSTRUCTIONS
    assert [row["output"] for row in before] == [row["output"] for row in after], "the same weights, the same noise"
    assert {row["generator"] for row in before}.isdisjoint(row["generator"] for row in after)
    assert all({"instruction", "output", "generator", "dataset"} <= row.keys() for row in after)
    assert all(0 < row["n_tokens"] <= 24 for row in after)
    assert read_benchmark(folder.answers("mine")).has_baseline, "AlpacaEval's model_outputs form is read back"
    generate.main(set_up(config), reporter=reporter)
    assert reporter.lines[-1] == "generate: mine is answered already"


def test_published_answers_are_the_baseline(tmp_path: Path) -> None:
    rows = [
        {"instruction": text, "output": f"Answer {n}.", "generator": "someone"} for n, text in enumerate(INSTRUCTIONS)
    ]
    folder, reporter = answered(a_config(tmp_path / "run", prompts_file(tmp_path / "mine.jsonl", rows)))
    before = store.read_json(folder.baseline_answers("mine"))
    assert [(row["output"], row["generator"]) for row in before] == [(f"Answer {n}.", "someone") for n in range(3)]
    assert "answers of the unaligned model" not in reporter.tracked


def test_changed_prompts_are_answered_again(tmp_path: Path) -> None:
    source = prompts_file(tmp_path / "mine.jsonl", INSTRUCTIONS)
    config = a_config(tmp_path / "run", source)
    answered(config)
    prompts_file(source, [*INSTRUCTIONS, "Who are you?"])
    folder, _ = answered(config)
    assert len(store.read_json(folder.answers("mine"))) == 4


def test_the_limit_takes_the_first_prompts(tmp_path: Path) -> None:
    source = prompts_file(tmp_path / "mine.jsonl", INSTRUCTIONS)
    config = configuration.resolve(
        configuration.merge(configuration.to_json(a_config(tmp_path / "run", source)), {"benchmark": {"limit": 2}})
    )
    folder, _ = answered(config)
    assert [row["instruction"] for row in store.read_json(folder.answers("mine"))] == INSTRUCTIONS[:2]


def test_without_a_judge_there_are_no_verdicts_and_the_report_says_so(tmp_path: Path) -> None:
    config = a_config(tmp_path / "run", prompts_file(tmp_path / "mine.jsonl", INSTRUCTIONS))
    folder, reporter = answered(config)
    judge.main(set_up(config), reporter=reporter)
    assert not (folder.root / "verdicts").exists()
    report.main(set_up(config), reporter=reporter)
    told = store.read_json(folder.report("json"))
    assert told["benchmark"]["judges"] == []
    assert "judge" in " ".join([*(one["text"] for one in told["headline"]), *told["not_measured"]]).lower()


def test_a_missing_benchmark_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        answered(a_config(tmp_path / "run", tmp_path / "nowhere.jsonl"))


def test_judging_before_answering_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        judge.main(set_up(a_config(tmp_path / "run", "windtunnel", judge="oracle")), reporter=Recorder())
    assert "trimtab generate" in refused.value.remedy


def test_the_oracle_judges_only_its_own_world(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="embedded world"):
        a_config(tmp_path / "run", tmp_path / "mine.jsonl", judge="oracle")


# --- the embedded judges ---------------------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Config, Folder]:
    """Half of the answers made right, so that there is something to judge."""
    config = a_config(tmp_path / "run", "windtunnel", judge="oracle")
    folder, reporter = answered(config)
    rows = store.read_json(folder.answers("windtunnel"))
    for row, task in zip(rows[::2], evaluation_tasks(config.windtunnel.prompts)[::2], strict=True):
        row["output"] = demonstrations.answer(task, Random(0), mode="right")  # noqa: S311  # which free words, no secret
    store.write_json(folder.answers("windtunnel"), rows)
    judge.main(set_up(config), reporter=reporter)
    return config, folder


def test_verdicts_are_annotations_of_alpaca_eval_in_the_benchmarks_order(judged: tuple[Config, Folder]) -> None:
    config, folder = judged
    for name in ("oracle", "biased", "unbiased"):
        read = read_annotations(folder.verdicts("windtunnel", name))
        assert [one.prompt_id for one in read.verdicts] == [
            task.id for task in evaluation_tasks(config.windtunnel.prompts)
        ]
        assert {one.annotator for one in read.verdicts} == {name}
        assert all(one.preference is not None and 1 <= one.preference <= 2 for one in read.verdicts)
        assert all(one.preference == 1.5 for one in read.verdicts if one.output_1 == one.output_2)


def test_the_oracles_verdicts_are_the_order_of_the_true_scores(judged: tuple[Config, Folder]) -> None:
    _, folder = judged
    scores = store.read_json(folder.verdicts("windtunnel", "scores"))
    verdicts = store.read_json(folder.verdicts("windtunnel", "oracle"))
    assert {row["preference"] for row in verdicts} > {1.5}
    for row, old, new in zip(verdicts, scores["baseline"], scores["model"], strict=True):
        assert row["preference"] == 1.5 + 0.5 * ((new > old) - (new < old))


def test_canaries_of_the_embedded_judges(judged: tuple[Config, Folder]) -> None:
    config, folder = judged
    tasks = {task.id: task for task in evaluation_tasks(config.windtunnel.prompts)}
    before = [Answer.from_json(row) for row in store.read_json(folder.baseline_answers("windtunnel"))]

    def share(verdicts: list[Verdict]) -> float:
        return sum((verdict.preference or 0) - 1 for verdict in verdicts) / len(verdicts)

    truth = canaries(windtunnel_judges.oracle(tasks), before, prompts=24)
    biased = canaries(windtunnel_judges.noisy_judge("biased", tasks, length_bias=0.3), before, prompts=24)
    for told in (truth, biased):
        assert [verdict.preference for verdict in told["baseline"]] == [1.5] * 24
        assert share(told["constant"]) < 0.5
        assert share(told["empty"]) < 0.5
    assert share(truth["instructing"]) < 0.5
    assert share(biased["instructing"]) > 0.9  # it is long: that is all a judge that likes length wants


def test_a_length_bias_prefers_the_same_answer_said_longer(judged: tuple[Config, Folder]) -> None:
    config, folder = judged
    tasks = {task.id: task for task in evaluation_tasks(config.windtunnel.prompts)}
    before = [Answer.from_json(row) for row in store.read_json(folder.baseline_answers("windtunnel"))]
    after = [Answer.from_json(row | {"output": row["output"] + " Have a nice day. Have a nice day."})
             for row in store.read_json(folder.baseline_answers("windtunnel"))]  # fmt: skip
    rates = [
        sum(
            (one.preference or 0) - 1
            for one in judge_answers(windtunnel_judges.noisy_judge("judge", tasks, length_bias=bias), before, after)
        )
        for bias in (0.0, 0.3, 1.0)
    ]
    assert rates[0] < rates[1] < rates[2]


def test_judged_once(judged: tuple[Config, Folder]) -> None:
    config, folder = judged
    reporter = Recorder()
    judge.main(set_up(config), reporter=reporter)
    assert reporter.lines == ["judge: windtunnel is judged already"]
    folder.verdicts("windtunnel", "biased").unlink()
    judge.main(set_up(config), reporter=reporter)
    assert folder.verdicts("windtunnel", "biased").is_file()
