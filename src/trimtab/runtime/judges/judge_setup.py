"""Who judges: the judges that a configuration names, made ready to be asked.

What an endpoint or a reward model has said is kept in one verdict store for all runs, so that nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from trimtab import store
from trimtab.config import Config
from trimtab.engine import identity
from trimtab.errors import RunError
from trimtab.judging import official
from trimtab.judging.endpoint_judge import EndpointJudge
from trimtab.judging.judges import Comparison, Judge
from trimtab.judging.rubrics import Rubric
from trimtab.judging.verdict_cache import VerdictCache, verdict_cache_path
from trimtab.progress import Reporter
from trimtab.runtime.inputs import benchmark, benchmark_name, official_name, texts, texts_used
from trimtab.runtime.judges.cached_endpoint import CachedEndpoint, cached_endpoint, endpoint, prices
from trimtab.runtime.judges.reward_model import RewardJudge
from trimtab.runtime.signals import Stop


def require(config: Config) -> None:
    """What the configured judge needs is there, before any work is done: texts, a key, prices to a limit, a model.

    Raises UserError for what is missing.
    """
    if benchmark_name(config) is None:
        return
    if config.judge.kind == "openai":
        endpoint(config).check()
        prices(config)
        if benchmark(config).multi_turn:
            official.judge_prompts(source=texts(config))
        else:
            rubric(config)
    if config.judge.kind == "reward":
        identity.folder_of(config.judge.model, revision=None, offline=config.offline)


def rubric(config: Config) -> Rubric:
    """The prompt and its reading, as configured, else as the benchmark has it."""
    wanted = config.judge.rubric
    if wanted == "auto":
        name = official_name(config)
        wanted = "weighted" if name is None else official.official_rubric(name)
    return official.rubric(wanted, source=texts(config))


class Seated(Protocol):
    """A judge that waits for its first comparison."""

    def judge(self, sample: Comparison | None) -> Judge:
        """The judge, made ready with the first comparison that will be asked."""

    def announce(self, judge: Judge, asked: Sequence[Comparison]) -> None:
        """Say what all of it will cost, before anything is asked."""

    def about(self, judge: Judge) -> dict[str, Any]:
        """Who judged, in which order, with what prompt, and what it took."""


@contextmanager
def seated(config: Config, *, reporter: Reporter, stop: Stop) -> Iterator[Seated]:
    """The configured judge over the verdict store of all runs."""
    if config.judge.kind == "openai":
        with cached_endpoint(config, reporter=reporter, stop=stop) as ask:
            yield _Endpoint(config, ask, reporter)
    else:
        with store.database(verdict_cache_path()) as connection:
            yield _Reward(config, VerdictCache(connection), reporter, stop)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    config: Config
    client: CachedEndpoint
    reporter: Reporter

    def judge(self, sample: Comparison | None) -> EndpointJudge:
        """Where the endpoint gives no log-probs, which one question tells, its text is read, and its name says so."""
        judge = endpoint_judge(self.config, self.client)
        if judge.rubric.top_logprobs is None or sample is None:
            return judge
        if self.client.gives_log_probs(judge.questions([sample])[0]):
            return judge
        if self.config.judge.rubric == "weighted":
            raise RunError(
                f"{self.client.endpoint.base_url} gives no log-probabilities, which the rubric 'weighted' reads",
                remedy="use --judge.rubric chosen (the answer's text), or auto",
            )
        judge = replace(judge, rubric=judge.rubric.without_log_probs())
        self.reporter.say(f"judge: the endpoint gives no log-probabilities; its text is read instead: {judge.name}")
        return judge

    def announce(self, judge: Judge, asked: Sequence[Comparison]) -> None:
        assert isinstance(judge, EndpointJudge)
        self.client.announce(judge.questions(asked))

    def about(self, judge: Judge) -> dict[str, Any]:
        assert isinstance(judge, EndpointJudge)
        return {
            "judge": judge.name,
            "rubric": judge.rubric.name,
            "prompt_sha256": judge.rubric.prompt_sha256,
            "order": judge.order,
            "texts": texts_used(self.config, official.rubric_text(judge.rubric.name)),
            **self.client.usage().to_json(),
        }


@dataclass(frozen=True, slots=True)
class _Reward:
    config: Config
    cache: VerdictCache
    reporter: Reporter
    stop: Stop

    def judge(self, sample: Comparison | None) -> RewardJudge:  # noqa: ARG002  the seam's signature
        return RewardJudge(self.config, self.cache, reporter=self.reporter, stop=self.stop)

    def announce(self, judge: Judge, asked: Sequence[Comparison]) -> None:
        """It costs time only, which its progress bar shows."""

    def about(self, judge: Judge) -> dict[str, Any]:
        assert isinstance(judge, RewardJudge)
        told = {"judge": judge.name, "rubric": "difference of rewards", "prompt_sha256": None, "order": "none"}
        return told | {"texts": texts_used(self.config)} | judge.about()


def endpoint_judge(config: Config, ask: CachedEndpoint) -> EndpointJudge:
    """The endpoint as a judge of two answers, by the configured rubric."""
    return EndpointJudge(config.judge.model, rubric(config), ask, both_orders=config.judge.both_orders)
