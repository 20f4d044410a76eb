"""One sitting: choosing, setting aside, taking back, going on, and what happens when a choice cannot be kept."""

from __future__ import annotations

import json

import pytest

from arena_sessions import Clock, MemoryKeeper, a_session, matches
from trimtab.errors import StoreError
from trimtab.studies.arena import Match, Session, StaleError


def now(session: Session) -> int:
    ticket = session.view().to_json()["ticket"]
    assert isinstance(ticket, int)
    return ticket


def shown(session: Session) -> str:
    """The prompt that is on the page."""
    return str(session.view().to_json()["match"]["asked"][0])


def test_every_match_is_asked_once_and_then_it_is_done() -> None:
    asked, seen = matches(5), []
    session = a_session(asked)
    while session.view().to_json()["state"] == "asking":
        seen.append(shown(session))
        session.choose("tie", ticket=now(session))
    assert seen == [match.prompt[0] for match in asked]
    assert session.view().to_json()["state"] == "done"
    assert session.view().to_json()["progress"] == {"total": 5, "judged": 5, "skipped": 0, "identical": 0}
    assert session.n_open() == 0


def test_a_choice_of_a_side_prefers_the_answer_that_stood_there() -> None:
    asked, keeper = matches(40), MemoryKeeper()
    session = a_session(asked, keeper)
    firsts_on_left = 0
    for match in asked:
        left = session.view().to_json()["match"]["left"][0]
        firsts_on_left += left == match.first[0]
        session.choose("left", ticket=now(session))
        assert keeper.chosen[match.content].preference(match) == (1.0 if left == match.first[0] else 2.0)
    assert 0 < firsts_on_left < 40, "the sides are dealt"


def test_the_view_holds_no_name_and_no_id() -> None:
    match = Match("secret-id", ("question",), ("one",), ("other",), "secret-dataset")
    session = a_session([match])
    assert set(session.view().to_json()) == {"state", "ticket", "progress", "can_undo", "match"}
    assert set(session.view().to_json()["match"]) == {"asked", "left", "right", "skipped_before"}
    assert "secret" not in json.dumps(session.view().to_json())
    assert match.content not in json.dumps(session.view().to_json())


def test_identical_answers_are_ties_that_nobody_is_asked_about() -> None:
    same = Match("same", ("q",), ("x",), ("x",))
    session = a_session([same, *matches(1)])
    assert session.view().to_json()["progress"] == {"total": 1, "judged": 0, "skipped": 0, "identical": 1}
    assert shown(session) == "question 0.0"
    session.choose("left", ticket=now(session))
    assert session.view().to_json()["state"] == "done"
    assert session.outcomes()[0].preference == 1.5
    assert session.outcomes()[0].choice is None


def test_stopping_early_counts_no_more_identical_answers_than_were_reached() -> None:
    """Two in three are identical, so they are two in three of what is counted after each choice, not all at once."""
    asked = matches(4)
    mixed = [
        one for i in range(4) for one in (asked[i], *(Match(f"s{i}{k}", (f"{i}{k}",), ("x",), ("x",)) for k in "ab"))
    ]
    session = a_session(mixed)
    counted = []
    for said in ("left", "skip", "tie", "left"):
        counted.append(sum(one.was_reached for one in session.outcomes()))
        if said == "skip":
            session.skip(ticket=now(session))
        else:
            session.choose("tie", ticket=now(session))
    counted.append(sum(one.was_reached for one in session.outcomes()))
    assert counted == [0, 1, 4, 7, 12], "the last ones follow the last choice"


def test_undo_takes_back_the_last_choices_in_turn_also_in_the_store() -> None:
    asked, keeper = matches(3), MemoryKeeper()
    session = a_session(asked, keeper)
    session.choose("left", ticket=now(session))
    session.skip(ticket=now(session))
    session.undo(ticket=now(session))
    assert shown(session) == "question 1.0"
    assert keeper.skipped == set()
    session.undo(ticket=now(session))
    assert shown(session) == "question 0.0"
    assert keeper.chosen == {}
    assert session.view().to_json()["can_undo"] is False
    with pytest.raises(StaleError):
        session.undo(ticket=now(session))
    for match in (*asked[:2], asked[2]):  # what was taken back comes first, then the rest
        assert shown(session) == match.prompt[0]
        session.choose("right", ticket=now(session))
    assert session.view().to_json()["state"] == "done"
    session.undo(ticket=now(session))
    assert shown(session) == "question 2.0"


def test_a_skipped_match_is_missing_and_comes_again_on_request() -> None:
    keeper = MemoryKeeper()
    session = a_session(matches(2), keeper)
    session.skip(ticket=now(session))
    session.choose("tie", ticket=now(session))
    assert session.view().to_json()["state"] == "done"
    assert session.view().to_json()["progress"]["skipped"] == 1
    assert [(one.preference, one.was_skipped) for one in session.outcomes()] == [(None, True), (1.5, False)]
    session.ask_skipped(ticket=now(session))
    assert shown(session) == "question 0.0"
    assert session.view().to_json()["match"]["skipped_before"] is True
    session.choose("left", ticket=now(session))
    assert session.view().to_json()["progress"] == {"total": 2, "judged": 2, "skipped": 0, "identical": 0}
    assert keeper.skipped == set()


def test_another_sitting_goes_on_and_asks_what_was_skipped_last() -> None:
    asked, keeper = matches(4), MemoryKeeper()
    first = a_session(asked, keeper)
    first.skip(ticket=now(first))
    first.choose("both bad", ticket=now(first))
    second = a_session(asked, keeper, seed=5)  # another seed deals new sides; what was chosen stays chosen
    assert second.view().to_json()["progress"] == {"total": 4, "judged": 1, "skipped": 1, "identical": 0}
    assert second.view().to_json()["can_undo"] is False
    seen = []
    while second.view().to_json()["state"] == "asking":
        seen.append(shown(second))
        second.choose("tie", ticket=now(second))
    assert seen == ["question 2.0", "question 3.0", "question 0.0"]
    assert [one.choice.pick for one in second.outcomes() if one.choice] == ["tie", "both bad", "tie", "tie"]


def test_undo_leaves_what_had_been_skipped_skipped() -> None:
    asked, keeper = matches(2), MemoryKeeper()
    first = a_session(asked, keeper)
    first.skip(ticket=now(first))
    second = a_session(asked, keeper)
    for prompt in ("question 1.0", "question 0.0"):
        assert shown(second) == prompt
        second.choose("tie", ticket=now(second))
    for prompt in ("question 0.0", "question 1.0"):
        second.undo(ticket=now(second))
        assert shown(second) == prompt
    assert keeper.skipped == {asked[0].content}
    assert second.view().to_json()["progress"] == {"total": 2, "judged": 0, "skipped": 1, "identical": 0}


def test_a_ticket_counts_once() -> None:
    session = a_session(matches(3))
    ticket = now(session)
    session.choose("left", ticket=ticket)
    for late in (session.skip, session.undo, session.finish, session.ask_skipped):
        with pytest.raises(StaleError):
            late(ticket=ticket)
    with pytest.raises(StaleError):
        session.choose("left", ticket=ticket)
    assert session.view().to_json()["progress"]["judged"] == 1


def test_nothing_is_chosen_after_the_end() -> None:
    session = a_session(matches(2))
    session.choose("left", ticket=now(session))
    session.finish(ticket=now(session))
    assert session.is_finished
    assert session.view().to_json() == {
        "state": "finished",
        "ticket": 2,
        "progress": {"total": 2, "judged": 1, "skipped": 0, "identical": 0},
        "can_undo": False,
    }
    for late in (session.skip, session.undo, session.finish):
        with pytest.raises(StaleError):
            late(ticket=now(session))


def test_a_choice_that_cannot_be_kept_was_not_made() -> None:
    keeper = MemoryKeeper(full=True)
    session = a_session(matches(2), keeper)
    with pytest.raises(StoreError):
        session.choose("left", ticket=now(session))
    assert shown(session) == "question 0.0"
    assert session.view().to_json()["progress"]["judged"] == 0
    keeper.full = False
    session.choose("left", ticket=now(session))
    assert session.view().to_json()["progress"]["judged"] == 1


def test_the_time_of_a_choice_runs_from_when_it_was_first_shown() -> None:
    clock, keeper, asked = Clock(), MemoryKeeper(), matches(2)
    session = a_session(asked, keeper, clock=clock)
    ticket = now(session)
    clock.now += 4
    session.view()  # a reload does not start it again
    clock.now += 3.5
    session.choose("left", ticket=ticket)
    assert keeper.chosen[asked[0].content].seconds == 7.5
    session.view()
    clock.now += 2
    session.choose("left", ticket=ticket + 1)
    assert keeper.chosen[asked[1].content].seconds == 2


def test_the_same_prompt_and_answers_twice_are_judged_once() -> None:
    [match] = matches(1)
    twin = Match("twin", match.prompt, match.second, match.first)
    session = a_session([match, twin])
    session.choose("left", ticket=now(session))
    assert session.view().to_json()["state"] == "done"
    assert session.view().to_json()["progress"]["judged"] == 2
    one, other = session.outcomes()
    assert {one.preference, other.preference} == {1.0, 2.0}, "the twin names the two answers the other way round"


def test_characters_that_hide_are_written_out() -> None:
    match = Match("p", ("q\r\nr",), ("safe\u202eexe.gnp\u200b\x1b[31m",), ("a\tb\nc\ud800 \U0001f468\u200d\U0001f469",))
    seen = a_session([match]).view().to_json()["match"]
    assert seen["asked"] == ["q\nr"]
    assert sorted([*seen["left"], *seen["right"]]) == [
        "a\tb\nc\\ud800 \U0001f468\u200d\U0001f469",
        "safe\\u202eexe.gnp\\u200b\\x1b[31m",
    ]
