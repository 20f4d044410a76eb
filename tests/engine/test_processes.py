"""Dealing pairs to processes, and one process's words for the others; the wire itself is in `tests/processes`."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.engine import processes
from trimtab.engine.batch_result import first_of_equal
from trimtab.engine.processes import ALONE, Processes, deal, has_launcher, is_started, join
from trimtab.engine.screening import Costs, Forecast
from trimtab.engine.share import Share
from trimtab.errors import ConfigError
from trimtab.records import TokenPair


def test_the_dearest_go_first_and_to_whoever_has_least() -> None:
    """7 → a; 5 → b; 4 → b (5 < 7, now 9); 3 → a (7 < 9, now 10); 1 → b (9 < 10): 10 and 10."""
    assert deal([3, 5, 1, 7, 4], 2) == [[0, 3], [1, 2, 4]]


def test_equal_costs_go_round() -> None:
    assert deal([1, 1, 1, 1, 1], 3) == [[0, 3], [1, 4], [2]]


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(1, 9))
def test_every_number_is_dealt_once_and_no_load_is_far_above_the_mean(costs: list[float], size: int) -> None:
    shares = deal(costs, size)
    assert sorted(number for share in shares for number in share) == list(range(len(costs)))
    loads = [sum(costs[number] for number in share) for share in shares]
    assert max(loads) <= sum(costs) / size + max(costs, default=0) + 1e-6  # Graham's bound for any list


def test_loads_of_long_tailed_pairs_differ_by_less_than_a_twentieth() -> None:
    """Prompts and responses as UltraFeedback's (median 175 and 275 tokens, lognormal), batches of 32, screened."""
    rng = random.Random(0)  # noqa: S311  # test data
    forecast = Forecast(640, costs=Costs())

    def ids(median: int) -> tuple[int, ...]:
        return tuple(rng.randrange(9) for _ in range(round(median * rng.lognormvariate(0, 0.6))))

    pairs = [TokenPair(f"p{n}", ids(175), ids(275), ids(275)) for n in range(640)]
    worst, total = {2: 0.0, 4: 0.0}, {2: 0.0, 4: 0.0}
    for start in range(0, 640, 32):
        indices, batch = range(start, start + 32), pairs[start : start + 32]
        screen_R = torch.tensor([rng.random() < 0.5 for _ in range(64)])
        costs = forecast.costs(indices, batch, screen_R)
        for size in worst:
            positions = Share.of(Processes(size=size), batch, costs).positions
            worst[size] += max(sum(costs[p] for p in own) for own in positions)
            total[size] += sum(costs) / size
    assert all(worst[size] / total[size] - 1 <= 0.05 for size in worst), worst


def test_what_a_pair_is_expected_to_cost() -> None:
    """Prompt 10, chosen 4, rejected 6, nothing known: all active at 3 a token. Screening the rejected one, which is
    active for sure: 3·10 + 3·4 + 6·(1 + 3)."""
    pair = TokenPair("a", (1,) * 10, (2,) * 4, (3,) * 6)
    forecast = Forecast(1, costs=Costs())
    assert forecast.costs([0], [pair], None) == [60.0]
    assert forecast.costs([0], [pair], torch.tensor([False, True])) == [30.0 + 12.0 + 24.0]


def test_pairs_of_one_prompt_stay_together_unless_they_are_more_than_a_share() -> None:
    prompt_a, prompt_b = (1, 2), (3, 4)
    pairs = [TokenPair(f"{n}", prompt_a if n % 2 else prompt_b, (n,), (n + 9,)) for n in range(4)]
    assert Share.of(Processes(size=2), pairs, [1.0] * 4).positions == ((0, 2), (1, 3))
    same = [TokenPair(f"{n}", prompt_a, (n,), (n + 9,)) for n in range(4)]
    assert Share.of(Processes(size=2), same, [1.0] * 4).positions == ((0, 1), (2, 3))


def test_the_first_of_equal_responses() -> None:
    """chosen of 0; rejected of 0; the same chosen again; what another prompt has before it is another response."""
    pairs = [TokenPair("a", (1,), (5,), (6,)), TokenPair("b", (1,), (5,), (7,)), TokenPair("c", (2,), (5,), (6,))]
    assert first_of_equal(pairs).tolist() == [0, 1, 0, 3, 4, 5]


def test_one_process_alone_does_everything_itself() -> None:
    assert ALONE.gather(3) == [3]
    assert ALONE.together(lambda: 4) == [4]
    assert ALONE.first(lambda: 5) == 5
    assert ALONE.is_first
    tensor = torch.ones(2)
    ALONE.sum_into([tensor])
    assert tensor.tolist() == [1, 1]


def test_a_head_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "START_SECONDS", 1.0)
    with pytest.raises(ConfigError, match=r"process 1 of 2 cannot reach the others through 127\.0\.0\.1:9"):
        join(timeout=1.0, device="cpu")


def test_what_a_launcher_has_set() -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert is_started(variables)
    assert not is_started(variables | {"WORLD_SIZE": "1"})  # torchrun with one process: nobody to talk to,
    assert has_launcher(variables | {"WORLD_SIZE": "1"})  # and it is not for trimtab to start others
    assert not is_started({"WORLD_SIZE": "2"})  # some images set it for no reason
