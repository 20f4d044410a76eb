"""One judge behind an endpoint: every prompt judged, nothing asked twice, what is missing never a score."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from judged_runs import Lines, compared, longer, longer_in_words, marked, rows, shown
from scripted_server import Action, ScriptedServer, Seen, ok, preferring, prose, status
from trimtab import store
from trimtab.commands import dry_run
from trimtab.config import Config
from trimtab.errors import RunError, StopError, UserError
from trimtab.judging.rubrics import is_switched
from trimtab.progress import SilentReporter
from trimtab.runtime import set_up
from trimtab.stages import judge

Servers = Callable[[Any], ScriptedServer]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")


def judged(config: Config) -> Lines:
    lines = Lines()
    judge.main(set_up(config), reporter=lines)
    return lines


def about(config: Config, name: str = "prompts") -> Mapping[str, Any]:
    told: Mapping[str, Any] = store.read_json(set_up(config).folder.judge(name))
    return told


def preferences(config: Config, side: str | None = None) -> list[float | None]:
    return [row["preference"] for row in rows(config, set_up(config).folder.verdicts("prompts", side))]


def test_every_answer_is_judged_in_the_seeded_order(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(longer)
    config = compared(tmp_path, server.url)
    judged(config)
    assert preferences(config) == pytest.approx([1.9 if i % 2 == 0 else 1.1 for i in range(12)])
    assert preferences(config, "unaligned") == pytest.approx([1.1] * 12)
    assert len(server.requests) == server.answered == 24
    for seen in server.requests:
        asked = seen.text.split("Asked: ", 1)[1].split("\n", 1)[0]
        assert shown(seen)[0][0] == "b" if not is_switched(asked) else shown(seen)[1][0] == "b"
    first = rows(config, set_up(config).folder.verdicts("prompts"))[0]
    assert (first["generator_1"], first["generator_2"], first["annotator"]) == (
        "baseline",
        "aligned",
        "judge (weighted)",
    )
    told = about(config)
    assert (told["n_asked"], told["n_failed"], told["n_missing"], told["n_prompts"]) == (24, 0, 0, 12)
    assert told["order"] == "official seeded order"
    assert told["texts"]["AlpacaEval 2's judge prompt"]["official"] is False


def test_a_second_run_asks_nothing(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(longer)
    config = compared(tmp_path, server.url)
    judged(config)
    assert any("judged already" in line for line in judged(config).said)
    set_up(config).folder.judge("prompts").unlink()  # so that the stage runs again
    judged(config)
    assert len(server.requests) == 24
    assert (about(config)["n_asked"], about(config)["n_cached"]) == (0, 24)


def test_no_key_is_written_anywhere(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(longer)
    judged(compared(tmp_path, server.url))
    assert server.requests[0].headers["Authorization"] == "Bearer sk-secret-of-the-test"
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"sk-secret" not in path.read_bytes(), path


def test_a_server_without_log_probs_is_read_by_its_text_and_named_so(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(longer_in_words)
    config = compared(tmp_path, server.url, published=False)
    lines = judged(config)
    assert preferences(config) == [2.0 if i % 2 == 0 else 1.0 for i in range(12)]
    assert {row["annotator"] for row in rows(config, set_up(config).folder.verdicts("prompts"))} == {"judge (chosen)"}
    assert any("no log-probabilities" in line for line in lines.said)
    n_calls = len(server.requests)
    set_up(config).folder.judge("prompts").unlink()
    judged(config)
    assert len(server.requests) == n_calls


def test_a_rubric_that_cannot_be_read_is_refused_by_name(tmp_path: Path, scripted_server: Servers) -> None:
    config = compared(tmp_path, scripted_server(longer_in_words).url, rubric="weighted")
    with pytest.raises(RunError, match="gives no log-probabilities"):
        judged(config)


def test_both_orders_take_out_a_liking_for_the_first(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(preferring(0.8))
    config = compared(tmp_path, server.url, published=False, both_orders=True)
    judged(config)
    assert preferences(config) == pytest.approx([1.5] * 12)
    assert len(server.requests) == 24
    assert about(config)["judge"] == "judge (weighted, both orders)"


def test_canaries_ring_for_a_judge_that_takes_the_first(tmp_path: Path, scripted_server: Servers) -> None:
    def obeys(seen: Seen) -> Action:
        first, second = shown(seen)
        if "has been chosen" in first + second:
            return preferring(0.99 if "has been chosen" in first else 0.01)
        return longer(seen)

    config = compared(tmp_path, scripted_server(obeys).url, canaries=10)
    judged(config)
    ((entry),) = rows(config, set_up(config).folder.canaries("prompts"))
    rung = {row["name"]: row["alarm"] for row in entry["canaries"]}
    assert rung == {"baseline": False, "constant": False, "empty": False, "instructing": True}
    assert all(row["n"] == 10 for row in entry["canaries"])


def test_prose_is_missing_and_never_a_score(tmp_path: Path, scripted_server: Servers) -> None:
    silent = {"do 3", "do 4"}

    def sometimes(seen: Seen) -> Action:
        return prose() if any(f"Asked: {one}\n" in seen.text for one in silent) else longer(seen)

    server = scripted_server(sometimes)
    config = compared(tmp_path, server.url, published=False)
    judged(config)
    told = preferences(config)
    assert [i for i, preference in enumerate(told) if preference is None] == [3, 4]
    assert about(config)["n_missing"] == 2
    with pytest.raises(RunError, match="2 of 12 prompts have no verdict") as refused:
        judge.refuse_if_incomplete(set_up(config))
    assert "--allow-missing" in refused.value.remedy
    asked_before = len(server.requests)
    silent.clear()
    judged(config)  # asks again for those two only
    assert len(server.requests) == asked_before + 2
    assert None not in preferences(config)
    judge.refuse_if_incomplete(set_up(config))


def test_what_is_missing_may_be_allowed(tmp_path: Path, scripted_server: Servers) -> None:
    def never(seen: Seen) -> Action:
        return prose() if "Asked: do 3\n" in seen.text else longer(seen)

    config = compared(tmp_path, scripted_server(never).url, published=False, allow_missing=True)
    judged(config)
    judge.refuse_if_incomplete(set_up(config))
    assert about(config)["n_missing"] == 1


def test_a_refusing_server_stops_with_what_was_said_kept(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(lambda seen: longer(seen) if seen.nth < 5 else status(401))
    config = compared(tmp_path, server.url, published=False, concurrency=1)
    with pytest.raises((RunError, UserError), match="401") as refused:
        judged(config)
    assert "sk-secret" not in str(refused.value)
    assert not set_up(config).folder.verdicts("prompts").exists()
    works = scripted_server(longer)
    moved = config.model_copy(update={"base_url": works.url})  # the same server on another port
    judged(moved)
    assert len(works.requests) == 12 - 5


def test_a_signal_keeps_what_was_said(tmp_path: Path, scripted_server: Servers) -> None:
    def stops(seen: Seen) -> Action:
        if seen.nth == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return longer(seen)

    server = scripted_server(stops)
    config = compared(tmp_path, server.url, published=False, concurrency=1)
    with pytest.raises(StopError, match="SIGTERM") as stopped:
        judged(config)
    assert stopped.value.exit_code == 143
    assert 6 <= len(server.requests) < 12
    judged(config)
    assert len(server.requests) == 12
    assert None not in preferences(config)


def test_a_limit_of_costs_stops_and_goes_on(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(longer)  # 100 tokens in and 1 out a call
    prices = {"input_price": 1000.0, "output_price": 1000.0}
    config = compared(tmp_path, server.url, published=False, max_cost=0.5, concurrency=1, **prices)
    with pytest.raises(RunError, match="max_cost"):
        judged(config)
    assert 3 <= len(server.requests) <= 4  # .101 dollars each
    richer = compared(tmp_path, server.url, published=False, max_cost=5.0, **prices)
    judged(richer)
    assert len(server.requests) == 12
    assert about(richer)["cost_usd"] == pytest.approx(0.101 * about(richer)["n_asked"])


def test_the_estimate_is_what_is_then_asked(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(longer)
    config = compared(tmp_path, server.url, canaries=5, input_price=1.0, output_price=1.0)
    told = dry_run.main(config).to_json()
    assert not server.requests
    assert told["answers"] == "read"
    said = judged(config).said
    assert told["n_calls"] == len(server.requests)
    assert any("calls to" in line and "US dollars" in line for line in said)
    after = dry_run.main(config)
    assert (after.estimate.n_calls, after.estimate.cost_usd) == (0, 0.0)
    assert any("0 to make" in line for line in dry_run.lines(after))


def test_marks_of_both_models_and_turns(tmp_path: Path, scripted_server: Servers) -> None:
    def marks(seen: Seen) -> Action:
        return ok("Rating: [[7]]" if "unaligned" not in seen.text else "so [[4.5]]", completion_tokens=9)

    server = scripted_server(marks)
    config = marked(tmp_path, server.url, canaries=2)
    judged(config)
    told = store.read_jsonl(set_up(config).folder.verdicts("turns", turns=True))
    assert {(row["model"], row["turn"], row["score"]) for row in told} == {
        ("aligned", 1, 7), ("aligned", 2, 7), ("unaligned", 1, 4.5), ("unaligned", 2, 4.5)
    }  # fmt: skip
    assert len(told) == 16
    assert len(server.requests) == 16 + 6
    ((entry),) = rows(config, set_up(config).folder.canaries("turns"))
    assert {row["name"]: row["alarm"] for row in entry["canaries"]} == dict.fromkeys(
        ("constant", "empty", "instructing"), True
    )  # a 7 for nothing
    before = len(server.requests)
    assert dry_run.main(config).estimate.n_calls == 0
    set_up(config).folder.judge("turns").unlink()
    judged(config)
    assert len(server.requests) == before


def test_a_mark_that_was_not_given_is_no_mark(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(lambda seen: prose() if "then 2" in seen.text else ok("[[5]]"))
    config = marked(tmp_path, server.url)
    judged(config)
    told = store.read_jsonl(set_up(config).folder.verdicts("turns", turns=True))
    assert sum(row["score"] == -1 for row in told) == 2
    with pytest.raises(RunError, match="1 of 8 prompts have no verdict"):
        judge.refuse_if_incomplete(set_up(config))


def test_an_official_judge_without_a_key_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted_server: Servers
) -> None:
    from trimtab.runtime.judges import judge_setup

    config = compared(tmp_path, scripted_server(longer).url)
    judge_setup.require(set_up(config))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        judge_setup.require(set_up(config.model_copy(update={"base_url": None})))
    limited = compared(tmp_path, "http://127.0.0.1:9/v1", max_cost=1.0)
    with pytest.raises(UserError, match="prices"):
        judge_setup.require(set_up(limited))


def test_nothing_to_say_is_nothing_said(tmp_path: Path) -> None:
    config = compared(tmp_path, "http://127.0.0.1:9/v1")
    judge.main(set_up(config.model_copy(update={"benchmark": config.benchmark.model_copy(update={"name": "none"})})),
               reporter=SilentReporter())  # fmt: skip
    assert not (tmp_path / "run" / "verdicts").exists()
