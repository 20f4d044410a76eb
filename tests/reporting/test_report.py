"""The report: words that match numbers, gaps that are told, hostile text that does nothing."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from report_runs import (
    CHROMIUM,
    LOSS,
    TIE,
    WIN,
    Lines,
    a_config,
    a_run,
    chromium,
    make_report,
    metrics_row,
    page,
    read_report,
    width_on_a_phone,
    write_json,
)
from trimtab import config as configuration
from trimtab.analysis import length_control, seeds, winrate
from trimtab.analysis.calibration import calibration
from trimtab.config import flags as config_flags
from trimtab.config import resolve
from trimtab.errors import StoreError
from trimtab.records import digest
from trimtab.reporting.numbers.report import reproduction
from trimtab.reporting.text import emphasis, fence, markdown
from trimtab.runtime import set_up
from trimtab.stages import report

# --- words and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preferences", "percent", "words"),
    [
        ([WIN] * 30 + [TIE] * 4 + [LOSS] * 6, "80.0", "better than no change"),  # (30 + 4/2) / 40
        ([WIN] * 6 + [TIE] * 4 + [LOSS] * 30, "20.0", "worse than no change"),  # (6 + 4/2) / 40
        ([WIN, LOSS] * 20, "50.0", "not distinguishable from no change"),
        ([WIN] * 21 + [LOSS] * 19, "52.5", "not distinguishable from no change"),
        ([TIE] * 40, "50.0", "not distinguishable from no change"),
    ],
)
def test_the_headline_says_what_the_verdicts_say(
    tmp_path: Path, preferences: list[float], percent: str, words: str
) -> None:
    a_run(tmp_path, {"oracle": preferences})
    config = a_config(tmp_path)
    first = make_report(config)["headline"][0]["text"].replace("\u00a0", " ")
    assert f"**{percent} %**" in first
    assert f"**{words}**" in first
    assert "40 prompts" in first
    assert "the oracle" in first
    for suffix in ("html", "md"):
        text = page(config, suffix).replace("\u00a0", " ")
        assert words in text
        assert f"{percent} %" in text


def test_report_numbers_are_those_of_the_analysis(tmp_path: Path) -> None:
    oracle = ([WIN] * 5 + [LOSS] * 2 + [TIE]) * 5
    biased = [1 + 0.1 * (i % 10) for i in range(40)]
    folder = a_run(tmp_path, {"oracle": oracle, "biased": biased}, growth=3)
    judges = {judge["judge"]: judge for judge in make_report(a_config(tmp_path))["benchmark"]["judges"]}
    assert list(judges) == ["oracle", "biased"]
    for name, preferences in (("oracle", oracle), ("biased", biased)):
        expected = winrate.win_rate(preferences)
        assert judges[name]["win_rate"]["value"] == pytest.approx(expected.win_rate)
        assert judges[name]["win_rate"]["ci95"] == pytest.approx(list(expected.ci95))
        assert judges[name]["standard_error"] == pytest.approx(expected.standard_error)
        assert [judges[name][key] for key in ("n_wins", "n_losses", "n_ties")] == [
            expected.n_wins, expected.n_losses, expected.n_ties,
        ]  # fmt: skip
    rows = json.loads(folder.verdicts("windtunnel", "biased").read_text())
    fit = length_control.length_controlled(
        [row["preference"] for row in rows],
        lengths_1=[len(row["output_1"]) for row in rows],
        lengths_2=[len(row["output_2"]) for row in rows],
    )
    numbers = judges["biased"]["length_controlled"]
    assert numbers["win_rate"]["value"] == pytest.approx(fit.length_controlled_winrate)
    assert numbers["win_rate"]["ci95"] == pytest.approx(list(fit.lc_ci95))
    assert numbers["by_seed"][0]["lc_c"] == pytest.approx(fit.lc_c)
    assert judges["oracle"]["length_controlled"] is None


def test_truth_that_the_judge_misses_is_said(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [LOSS] * 30 + [WIN] * 10, "biased": [1.95] * 38 + [1.05] * 2})
    sentences = [s for s in make_report(a_config(tmp_path))["headline"] if "length-biased judge" in s["text"]]
    assert sentences[0]["tone"] == "warn"
    assert "lies outside both intervals" in sentences[0]["text"]
    assert "misleads" in sentences[0]["text"]


def test_a_judge_in_doubt_is_not_called_misleading(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN] * 38 + [LOSS] * 2, "biased": [1.7, 1.6, 1.65, 1.55] * 10})
    sentences = [s for s in make_report(a_config(tmp_path))["headline"] if "length-biased judge" in s["text"]]
    assert sentences[0]["tone"] == "plain"
    assert "a judge in doubt stays nearer to 50" in sentences[0]["text"]


def test_families_lengths_scores_and_held_out(tmp_path: Path) -> None:
    """math prompts are the even ones, which always win; writing always loses. Scores: .25 → .5 and .25 → .75."""
    a_run(tmp_path, {"oracle": [WIN, LOSS] * 20}, growth=4)
    numbers = make_report(a_config(tmp_path))
    benchmark = numbers["benchmark"]
    assert [(row["family"], row["judges"]["oracle"]["value"]) for row in benchmark["families"]] == [
        ("math", 100.0),
        ("writing", 0.0),
    ]
    assert benchmark["families"][0]["judges"]["oracle"]["ci95"][0] < 90, "twenty wins of twenty are not certainty"
    scores = benchmark["scores"]
    assert [scores[key]["value"] for key in ("before", "after", "difference")] == [0.25, 0.625, 0.375]
    assert [row["difference"]["value"] for row in scores["families"]] == [0.25, 0.5]
    lengths = benchmark["lengths"]["characters"]
    assert lengths["direction"] == "above"
    assert lengths["difference"]["value"] == pytest.approx(lengths["after"]["value"] - lengths["before"]["value"])
    assert sum(benchmark["lengths"]["histogram"]["after"]) == pytest.approx(1)
    heldout, expected = numbers["heldout"], calibration([2.0] * 30 + [-1.0] * 8 + [0.0] * 2)
    assert heldout["accuracy"]["value"] == 0.775 == expected.accuracy  # (30 + 2/2) / 40
    assert heldout["accuracy"]["ci95"] == pytest.approx(list(expected.accuracy_ci95))
    assert heldout["reward_gap"]["value"] == pytest.approx((60 - 8) / 40)
    assert heldout["before"]["accuracy"]["value"] == 0.5
    assert heldout["calibration"]["after"]["ece"] == pytest.approx(expected.ece)


def test_longer_answers_are_warned_of_and_shorter_ones_are_not(tmp_path: Path) -> None:
    a_run(tmp_path / "long", {"oracle": [WIN] * 20}, after="a good answer and one word more and another")
    warnings = [s for s in make_report(a_config(tmp_path / "long"))["headline"] if "grew longer" in s["text"]]
    assert [s["tone"] for s in warnings] == ["warn"]
    a_run(tmp_path / "short", {"oracle": [WIN] * 20}, after="short")
    told_short = [s["text"] for s in make_report(a_config(tmp_path / "short"))["headline"]]
    assert any("became shorter" in text for text in told_short)
    assert not any("grew longer" in text for text in told_short)


def test_missing_verdicts_are_counted_not_scored(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN] * 9 + [LOSS] + [None] * 10})
    judge = make_report(a_config(tmp_path))["benchmark"]["judges"][0]
    assert (judge["win_rate"]["value"], judge["win_rate"]["n"], judge["win_rate"]["n_missing"]) == (90.0, 10, 10)
    assert "10 prompts without a verdict left out" in page(a_config(tmp_path))


def test_no_verdict_at_all_concludes_nothing(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [None] * 20})
    first = make_report(a_config(tmp_path))["headline"][0]
    assert first["tone"] == "warn"
    assert "nothing can be said" in first["text"]


def test_the_regime_is_named_and_active_fractions_are_by_epoch(tmp_path: Path) -> None:
    """Epoch 1 is steps 1 to 50, rejected 1 − step/50 but at least .2; epoch 2 stays at .2."""
    a_run(tmp_path, {"oracle": [WIN] * 20})
    numbers = make_report(a_config(tmp_path))
    assert numbers["regime"][0]["text"].startswith("Selective")
    entry = numbers["training"]["seeds"][0]
    assert entry["regime"]["name"] == "selective"
    first, second = entry["sides_by_epoch"]
    assert first["active/rejected"] == pytest.approx((sum(1 - s / 50 for s in range(1, 41)) + 10 * 0.2) / 50)
    assert (second["epoch"], second["n_steps"], second["active/rejected"]) == (2, 50, pytest.approx(0.2))
    assert entry["curves"]["step"][0] == 1.5, "a hundred steps are shown as fifty stretches of two"


def test_without_a_dead_zone_the_pull_is_shown(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    rows = [metrics_row(step, 0) | {"pull/chosen": 0.9, "pull/rejected": 0.3} for step in range(1, 101)]
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = a_config(tmp_path, objective="dpo")
    assert make_report(config)["training"]["seeds"][0]["sides_by_epoch"][0]["pull/rejected"] == pytest.approx(0.3)
    assert "still pull" in page(config)
    assert "that still have a gradient" not in page(config)


# --- what was not measured -------------------------------------------------------------------------------------------


def test_a_run_without_a_benchmark_says_so(tmp_path: Path) -> None:
    a_run(tmp_path, {})
    config = a_config(tmp_path, benchmark="none", judge="none")
    numbers = make_report(config)
    assert numbers["benchmark"] is None
    assert "was not measured" in numbers["headline"][0]["text"]
    assert "Whether the answers got better was not measured" in page(config)
    assert any("no benchmark was asked" in gap for gap in numbers["not_measured"])


def test_answers_without_a_judge_are_shown_unjudged(tmp_path: Path) -> None:
    a_run(tmp_path, {})
    config = a_config(tmp_path, judge="none")
    numbers = make_report(config)
    assert "was not judged" in numbers["headline"][0]["text"]
    assert numbers["samples"][0]["group"] == "answer"
    assert "a good answer" in page(config)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("metrics.jsonl", "Training curves: metrics.jsonl is not in the run folder"),
        ("heldout.json", "Held-out pairs: none were kept out"),
        ("data/audit.json", "Data audit: data/audit.json is not in the run folder"),
        ("verdicts/windtunnel.scores.json", "True scores: not in the run folder"),
        ("versions.json", "versions.json is not in this run folder"),
        ("answers/windtunnel.baseline.json", "a benchmark was asked, and its answers are not in the run folder"),
    ],
)
def test_each_missing_file_is_told_in_words(tmp_path: Path, path: str, word: str) -> None:
    a_run(tmp_path, {"oracle": [WIN] * 20})
    (tmp_path / path).unlink()
    make_report(a_config(tmp_path))
    assert word in html.unescape(page(a_config(tmp_path)))


def test_an_empty_folder_still_gives_a_report(tmp_path: Path) -> None:
    numbers = make_report(a_config(tmp_path))
    assert numbers["training"] is None
    assert numbers["benchmark"] is None
    assert "no regime can be named" in numbers["regime"][0]["text"]


def test_one_seed_is_told_to_be_one(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN] * 20})
    assert any(
        gap.startswith("Seeds: one training run only") for gap in make_report(a_config(tmp_path))["not_measured"]
    )


@pytest.mark.parametrize("content", ['{"not": "rows"}', "[1, 2]", '[{"instruction": "no output"}]', "{broken"])
def test_a_damaged_artefact_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    folder.answers("windtunnel").write_text(content)
    with pytest.raises(StoreError, match=re.escape("windtunnel.json")):
        make_report(a_config(tmp_path))
    assert not folder.report("html").exists()


# --- one file, no script, no fetch, nothing obeyed -------------------------------------------------------------------

HOSTILE = (
    "</div></section><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>"
    "<style>*{display:none}</style>{{ 7 * 7 }}{% raw %}&#x3c;b&#x3e;\x1b[31mred\x1b]0;title\x07\u202egnp.exe"
    '\u2066\u200b\ufeff" onmouseover="alert(3)\x00``` | ![x](http://evil.example/y) [a](javascript:alert(4))'
)


class Elements(HTMLParser):
    """Every element and attribute of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_inert(text: str) -> None:
    """No script, no handler, no address that loads; the policy forbids them besides."""
    elements = Elements(text)
    names = {tag for tag, _ in elements.tags}
    assert not names & {
        "script",
        "iframe",
        "object",
        "embed",
        "img",
        "link",
        "base",
        "form",
        "audio",
        "video",
        "source",
    }
    assert [tag for tag, _ in elements.tags].count("style") == 1
    for tag, attributes in elements.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, name)
        assert not re.search(r"url\((?!#)|expression|javascript:|@import", attributes.get("style") or "")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policies = [
        a["content"] for tag, a in elements.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    ]


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN, LOSS] * 20})
    make_report(a_config(tmp_path))
    text = page(a_config(tmp_path))
    assert_inert(text)
    assert "<script" not in text
    assert not re.search(r"https?://", text)
    assert text.count("<svg") == 6, "the brand and five plots are inside the file"


def test_hostile_text_shows_itself_and_does_nothing(tmp_path: Path) -> None:
    folder = a_run(
        tmp_path, {"oracle": [WIN, LOSS, TIE, TIE] * 10}, after=HOSTILE, before=f"b {HOSTILE}", prompt=f"q {HOSTILE}"
    )
    audit = json.loads((folder.data / "audit.json").read_text())
    audit["sample"]["prompt"] = audit["template_sentence"] = HOSTILE
    audit["dropped_by_reason"][HOSTILE] = 1
    write_json(folder.data / "audit.json", audit)
    versions = json.loads(folder.versions.read_text())
    versions["hardware"]["processor"] = HOSTILE
    write_json(folder.versions, versions)
    rows = json.loads(folder.verdicts("windtunnel", "oracle").read_text())
    write_json(folder.verdicts("windtunnel", "oracle"), [row | {"annotator": "{0} ** " + HOSTILE} for row in rows])
    config = a_config(tmp_path, model=f"model {HOSTILE}", data=f"data {HOSTILE}")
    make_report(config)
    text = page(config)
    assert_inert(text)
    for steering in ("\x1b", "\x07", "\u202e", "\u2066", "\u200b", "\ufeff", "\x00"):
        assert steering not in text
        assert steering not in page(config, "md")
    text_of_page = Elements(text).text
    assert "<script>alert(1)</script>" in text_of_page, "what was said stays readable"
    assert "{{ 7 * 7 }}{% raw %}" in text_of_page
    assert "\\x1b[31mred" in text_of_page
    assert "\\u202e" in text_of_page


def test_half_a_surrogate_pair_is_written_out(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN, LOSS] * 10}, after="half \ud83d of a pair")
    config = a_config(tmp_path)
    report.main(set_up(config), reporter=Lines())  # type: ignore[arg-type]  # a reporter that only says
    for suffix in ("html", "md"):
        assert "\\ud83d" in page(config, suffix)


def test_hostile_text_stays_text_in_markdown(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN, LOSS] * 10}, after=HOSTILE, prompt=HOSTILE)
    config = a_config(tmp_path, model="<b>m</b> | `x`")
    make_report(config)
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", page(config, "md"), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<", outside)
    assert "alert" not in outside


def test_markdown_pieces() -> None:
    assert markdown("a|b <i>*x*\nnext") == r"a\|b \<i\>\*x\* ⏎ next"
    assert fence("x ```` y").startswith("`````text\n")
    assert emphasis("a **b** c") == [("a ", False), ("b", True), (" c", False)]
    assert emphasis("2 ** 3") == [("2 ** 3", False)]


# --- samples ---------------------------------------------------------------------------------------------------------


def test_samples_are_taken_by_hash_and_both_ways(tmp_path: Path) -> None:
    preferences = [WIN] * 30 + [LOSS] * 8 + [TIE] * 2
    a_run(tmp_path, {"oracle": preferences})
    groups = {group["group"]: group for group in make_report(a_config(tmp_path))["samples"]}
    assert [(name, len(group["samples"])) for name, group in groups.items()] == [
        ("win", 4), ("loss", 4), ("tie", 2), ("drift", 3),
    ]  # fmt: skip
    assert (groups["win"]["n_all"], groups["loss"]["n_all"], groups["tie"]["n_all"]) == (30, 8, 2)
    wins = sorted((f"p{i}" for i in range(30)), key=digest)
    by_family = [[p for p in wins if int(p[1:]) % 2 == parity] for parity in (0, 1)]
    expected = {p for family in by_family for p in family[:2]}
    assert {sample["prompt_id"] for sample in groups["win"]["samples"]} == expected
    for sample in groups["loss"]["samples"]:
        assert sample["verdicts"] == [{"judge": "oracle", "outcome": "loss"}]


def test_drift_is_the_longest_growth(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    rows = json.loads(folder.answers("windtunnel").read_text())
    rows[11] |= {"output": "word " * 500, "n_tokens": 500}
    write_json(folder.answers("windtunnel"), rows)
    config = a_config(tmp_path)
    drift = next(group for group in make_report(config)["samples"] if group["group"] == "drift")
    assert drift["samples"][0]["prompt_id"] == "p11"
    assert "characters more)" in page(config), "long texts are shortened on the page"
    assert len(drift["samples"][0]["after"]["text"]) == 2500, "and whole in report.json"


# --- several seeds ---------------------------------------------------------------------------------------------------


def test_seeds_are_pooled(tmp_path: Path) -> None:
    table = [[WIN] * 12 + [LOSS] * 8, [WIN] * 16 + [LOSS] * 4, [WIN] * 14 + [TIE] * 6]
    for k, row in enumerate(table):
        a_run(tmp_path / f"seed-{k}", {"oracle": row, "biased": [1.4 + 0.02 * i for i in range(20)]}, seed=k)
    config = a_config(tmp_path, seeds=3)
    lines = Lines()
    report.main(set_up(config), reporter=lines)  # type: ignore[arg-type]  # a reporter that only says
    numbers = read_report(config)
    assert numbers["kind"] == "pooled"
    assert numbers["seeds"] == [0, 1, 2]
    oracle = numbers["benchmark"]["judges"][0]
    expected = seeds.pooled_rate(winrate.scores_from([p for row in table for p in row]).reshape(3, 20))
    assert oracle["win_rate"]["value"] == pytest.approx(100 * (0.6 + 0.8 + 0.85) / 3)
    assert oracle["win_rate"]["ci95"] == pytest.approx([100 * end for end in expected.ci95])
    assert oracle["win_rate"]["method"] == seeds.METHOD
    assert [entry["win_rate"]["value"] for entry in oracle["by_seed"]] == pytest.approx([60.0, 80.0, 85.0])
    assert numbers["benchmark"]["judges"][1]["length_controlled"]["win_rate"]["n_seeds"] == 3
    assert numbers["regime"][0]["text"].startswith("Selective in all 3 seeds")
    assert [entry["first"]["loss"] for entry in numbers["training"]["seeds"]] == pytest.approx([1.99, 2.09, 2.19])
    assert numbers["heldout"]["accuracy"]["n_seeds"] == 3
    assert not any(gap.startswith("Seeds:") for gap in numbers["not_measured"])
    text = page(config)
    assert_inert(text)
    assert "and 3 seeds" in text
    assert "Seed 2" in text


def test_a_prompt_that_one_seed_lacks_is_missing_for_all(tmp_path: Path) -> None:
    rows: list[list[float | None]] = [[WIN] * 20, [WIN] * 10 + [LOSS] * 9 + [None]]
    for k, row in enumerate(rows):
        a_run(tmp_path / f"seed-{k}", {"oracle": row})
    config = a_config(tmp_path, seeds=2)
    report.main(set_up(config), reporter=Lines())  # type: ignore[arg-type]  # a reporter that only says
    rate = read_report(config)["benchmark"]["judges"][0]["win_rate"]
    assert (rate["n"], rate["n_missing"], rate["n_seeds"]) == (19, 1, 2)


# --- to repeat it, and not to repeat it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"objective": {"name": "dpo", "beta": 0.3}, "seed": 7, "offline": True, "windtunnel": {"length_bias": -0.3}},
        {"data": {"source": "my pairs.jsonl", "columns": {"prompt": "q", "chosen": "yes", "rejected": "no"}}},
        {"model": "it's; rm -rf $HOME", "adapter": {"kind": "lora", "rank": 4}, "train": {"learning_rate": 3e-6}},
        {"adapter": {"kind": "lora", "targets": ["q_proj", "v_proj"]}},
    ],
)
def test_the_printed_command_gives_the_same_configuration(tmp_path: Path, tree: dict[str, Any]) -> None:
    config = a_config(tmp_path / "a run", **tree)
    commands = reproduction(config)
    assert shlex.split(commands.from_file)[:3] == ["trimtab", "run", str(tmp_path / "a run" / "config.json")]
    assert commands.from_flags is not None
    words = shlex.split(commands.from_flags)
    assert words[:2] == ["trimtab", "run"]
    _, flags = config_flags.parse(words[2:])
    assert resolve(configuration.merge({}, flags)) == config.model_copy(update={"out": f"{config.out}-again"})


def test_the_configuration_is_shown_whole(tmp_path: Path) -> None:
    config = a_config(tmp_path, benchmark="none", judge="none", objective={"name": "dpo", "beta": 0.25})
    make_report(config)
    page_text = Elements(page(config)).text
    assert [key for key in configuration.keys() if key not in page_text] == []  # noqa: SIM118  # a function of the module
    assert read_report(config)["config"] == configuration.to_json(config)


def test_nothing_changed_nothing_done(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    config = a_config(tmp_path)
    make_report(config)
    made_at = folder.report("html").stat().st_mtime_ns
    again = Lines()
    report.main(set_up(config), reporter=again)  # type: ignore[arg-type]  # a reporter that only says
    assert again.said == ["report: nothing has changed"]
    assert folder.report("html").stat().st_mtime_ns == made_at
    rows = json.loads(folder.verdicts("windtunnel", "oracle").read_text())
    write_json(folder.verdicts("windtunnel", "oracle"), [row | {"preference": LOSS} for row in rows])
    assert make_report(config)["benchmark"]["judges"][0]["win_rate"]["value"] == 0.0


def test_edited_verdicts_are_reported_and_said_to_be_edited(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    path = folder.verdicts("windtunnel", "oracle")
    folder.finish("judge", "a digest", [path])
    assert make_report(a_config(tmp_path))["edited"] == []
    write_json(path, [row | {"preference": LOSS} for row in json.loads(path.read_text())])
    numbers = make_report(a_config(tmp_path))
    assert numbers["edited"] == [{"seed": 0, "files": [path.relative_to(tmp_path).as_posix()]}]
    assert numbers["benchmark"]["judges"][0]["win_rate"]["value"] == 0.0
    assert "Edited after it was made" in page(a_config(tmp_path), "md")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    pages = []
    for _ in range(2):
        a_run(tmp_path, {"oracle": [WIN, LOSS] * 10})
        make_report(a_config(tmp_path))
        pages.append((page(a_config(tmp_path)), page(a_config(tmp_path), "json")))
        shutil.rmtree(tmp_path / ".stages")
    assert pages[0] == pages[1]


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_on_a_phone_nothing_is_wider_than_the_screen(tmp_path: Path) -> None:
    """The page in a frame 360 px wide, every fold open; a probe in the outer page measures it."""
    a_run(
        tmp_path,
        {"oracle": [WIN, LOSS] * 20, "biased": [1.3, 1.9, 1.6, 1.1] * 10},
        after="z" * 400,
        before="w" * 398,
        prompt="x" * 300,
    )
    config = a_config(tmp_path, data="owner/" + "long-name" * 12)
    make_report(config)
    text = page(config)
    loud = chromium(set_up(config).folder.report("html"), tmp_path / "one", "--dump-dom")
    assert "CONSOLE" not in loud.stderr, "the policy had nothing to forbid"
    assert "Win rates" in loud.stdout

    assert width_on_a_phone(text, tmp_path) <= 360
