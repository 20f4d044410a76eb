"""`trimtab check --before --after`: samples that lm-eval wrote by itself, paired."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm_eval_files import DATE, write_samples
from trimtab import cli
from trimtab.commands import check
from trimtab.errors import DataError


def test_the_paired_difference(tmp_path: Path) -> None:
    """Twelve samples: 6 right before and 9 after, the same 6 among them: +3/12 = 25 points. A metric whose values are
    no numbers is named; a group has no samples of its own."""
    before = write_samples(tmp_path / "before", values={"acc": [1] * 6 + [0] * 6, "names": ["x"] * 12})
    after = write_samples(tmp_path / "after", values={"acc": [1] * 9 + [0] * 3, "names": ["x"] * 12})
    numbers = check.of_files(str(before), str(after)).numbers
    [measure] = numbers.measures
    assert (measure.task, measure.measure, measure.higher_is_better) == ("colours", "acc", True)
    assert measure.change.before.value == pytest.approx(0.5)
    assert measure.change.difference.value == pytest.approx(0.25)
    assert measure.change.difference.n == 12
    assert numbers.left_out == ("colours names",)


def test_lower_is_better_where_its_results_say_so(tmp_path: Path) -> None:
    before = write_samples(tmp_path / "before", values={"acc": [0] * 12}, up=False)
    after = write_samples(tmp_path / "after", values={"acc": [1] * 12}, up=False)
    [measure] = check.of_files(str(before), str(after)).numbers.measures
    assert measure.change.difference.value == 1
    assert measure.direction == "below"  # worse


def test_the_newest_results_count(tmp_path: Path) -> None:
    before = write_samples(tmp_path / "before", values={"acc": [0] * 10})
    write_samples(tmp_path / "before", values={"acc": [1] * 10}, date="2026-12-01T00-00-00.000000")
    after = write_samples(tmp_path / "after", values={"acc": [1] * 10})
    [measure] = check.of_files(str(before), str(after)).numbers.measures
    assert measure.change.difference.value == 0


def test_what_was_not_asked_alike_is_refused(tmp_path: Path) -> None:
    before = write_samples(tmp_path / "before", values={"acc": [1] * 10})
    fewer = write_samples(tmp_path / "fewer", values={"acc": [1] * 9})
    chat = write_samples(tmp_path / "chat", values={"acc": [1] * 10}, chat="{{ messages }}")
    with pytest.raises(DataError, match="not asked the same documents"):
        check.of_files(str(before), str(fewer))
    with pytest.raises(DataError, match="in a chat template and the other was not"):
        check.of_files(str(before), str(chat))
    with pytest.raises(DataError, match="several models"):
        check.of_files(str(tmp_path), str(before))


def test_a_folder_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no results_\*\.json of lm-eval"):
        check.of_files(str(tmp_path), str(tmp_path))
    (write_samples(tmp_path, values={"acc": [1]}) / "owner__model" / f"samples_colours_{DATE}.jsonl").unlink()
    with pytest.raises(DataError, match="no samples lie beside it"):
        check.of_files(str(tmp_path), str(tmp_path))


def test_a_row_of_another_form_is_no_sample(tmp_path: Path) -> None:
    folder = write_samples(tmp_path, values={"acc": [1]})
    (folder / "owner__model" / f"samples_colours_{DATE}.jsonl").write_text('{"doc": 1}\n')
    with pytest.raises(DataError, match="no samples of lm-eval"):
        check.of_files(str(folder), str(folder))


def test_a_task_of_one_side_alone_is_named(tmp_path: Path) -> None:
    """It was left out without a word."""
    later = "2026-12-01T00-00-00.000000"
    for side, more in (("before", "old"), ("after", "new")):
        write_samples(tmp_path / side, values={"acc": [1] * 10, "names": ["x"] * 10})
        write_samples(tmp_path / side, values={"acc": [0] * 10}, date=later, task=more)
    result = check.of_files(str(tmp_path / "before"), str(tmp_path / "after"))
    assert [measure.task for measure in result.numbers.measures] == ["colours"]
    assert result.to_json()["unshared"] == ["old (before alone)", "new (after alone)"]
    assert check.lines(result)[-2:] == [
        "  not compared, only one of the two folders has it: old (before alone), new (after alone)",
        "  not compared, no value of each sample: colours names",
    ]


@pytest.mark.parametrize("results", ["{}", "[]", '{"higher_is_better": null}'])
def test_results_without_directions_are_refused_by_file_and_key(tmp_path: Path, results: str) -> None:
    folder = write_samples(tmp_path, values={"acc": [1]})
    (folder / "owner__model" / f"results_{DATE}.json").write_text(results)
    with pytest.raises(DataError, match=rf"results_{DATE}\.json: the key higher_is_better is not there"):
        check.of_files(str(folder), str(folder))


def test_flags_of_asking_are_refused_where_nothing_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write_samples(tmp_path, values={"acc": [1] * 10}))
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", "--before", folder, "--after", folder, "--limit", "3", "--chat", "--offline"])
    assert stop.value.code == 2
    assert "--limit, --chat, --offline have no effect here" in capsys.readouterr().err
