"""The judge that a configuration names, made ready to be asked.

What an endpoint or a reward model has said is kept in one verdict cache for all runs, so that nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from trimtab import store
from trimtab.engine import identity
from trimtab.errors import RunError
from trimtab.judging import official
from trimtab.judging.endpoint_judge import EndpointJudge
from trimtab.judging.judges import Comparison, Judge
from trimtab.judging.rubrics import Rubric
from trimtab.judging.verdict_cache import VerdictCache, verdict_cache_path
from trimtab.judging.verifiers import verifier
from trimtab.progress import Reporter
from trimtab.runtime.benchmark_prompts import texts_used
from trimtab.runtime.judges.cached_endpoint import CachedEndpoint, cached_endpoint, endpoint, prices
from trimtab.runtime.judges.judge_record import JudgeIdentity, JudgeUsage
from trimtab.runtime.judges.position import position_note
from trimtab.runtime.judges.reward_model import RewardJudge
from trimtab.runtime.judges.verifier_judge import VerifierJudge
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Stop


def require(setup: RunSetup) -> None:
    """What the configured judge needs is there, before any work is done: texts, a key, prices to a limit, a model.

    Raises UserError for what is missing.
    """
    if setup.benchmark_name is None:
        return
    if setup.config.judge.kind == "openai" and setup.benchmark.multi_turn:
        endpoint(setup.config).check()
        prices(setup.config)
        official.judge_prompts(source=setup.texts)
    else:
        require_of_answers(setup)


def require_of_answers(setup: RunSetup) -> None:
    """As `require`, of a judge of single answers; the benchmark is not read."""
    config = setup.config
    match config.judge.kind:
        case "openai":
            endpoint(config).check()
            prices(config)
            rubric(setup)
        case "reward":
            identity.require_reward(identity.reward_folder_of(config.judge.model, offline=config.offline))
        case "verifier":
            verifier(config.judge.name, seconds=config.judge.verifier_seconds).close()


def rubric(setup: RunSetup) -> Rubric:
    """The prompt and its reading, as configured, else as the benchmark has it."""
    name = setup.config.judge.rubric
    if name == "auto":
        benchmark = setup.official_benchmark
        name = "weighted" if benchmark is None else official.official_rubric(benchmark)
    return official.rubric(name, source=setup.texts)


def endpoint_judge(setup: RunSetup, client: CachedEndpoint) -> EndpointJudge:
    """The endpoint as a judge of two answers, by the configured rubric."""
    judge = setup.config.judge
    return EndpointJudge(judge.model, rubric(setup), client, both_orders=judge.both_orders)


class JudgeSource(Protocol):
    """A judge that waits for its first comparison."""

    def judge(self, sample: Comparison | None) -> Judge:
        """The judge, made ready with the first comparison that will be asked."""

    def announce(self, judge: Judge, comparisons: Sequence[Comparison]) -> None:
        """Say what all of it will cost, before anything is asked."""

    def check_position(self, judge: Judge, comparisons: Sequence[Comparison]) -> None:
        """Note where the judge follows the position of the answers, by these comparisons, which it has judged."""

    def identity(self, judge: Judge) -> JudgeIdentity:
        """Who judged, in which order, with what prompt."""

    def usage(self, judge: Judge) -> JudgeUsage:
        """What it took."""


@contextmanager
def configured_judge(setup: RunSetup, *, reporter: Reporter, stop: Stop) -> Iterator[JudgeSource]:
    """The configured judge over the verdict cache of all runs."""
    if setup.config.judge.kind == "openai":
        with cached_endpoint(setup.config, reporter=reporter, stop=stop) as client:
            yield _EndpointSource(setup, client, reporter)
    else:
        with store.database(verdict_cache_path()) as connection:
            yield _ScoreSource(setup, VerdictCache(connection), reporter, stop)


@dataclass(frozen=True, slots=True)
class _EndpointSource:
    setup: RunSetup
    client: CachedEndpoint
    reporter: Reporter

    def judge(self, sample: Comparison | None) -> EndpointJudge:
        """Where the endpoint gives no log-probs, which one question tells, its text is read, and its name says so."""
        judge = endpoint_judge(self.setup, self.client)
        if judge.rubric.top_logprobs is None or sample is None:
            return judge
        if self.client.gives_log_probs(judge.questions([sample])[0]):
            return judge
        if self.setup.config.judge.rubric == "weighted":
            raise RunError(
                f"{self.client.endpoint.base_url} gives no log-probabilities, which the rubric 'weighted' reads",
                remedy="use --judge.rubric chosen (the answer's text), or auto",
            )
        judge = replace(judge, rubric=judge.rubric.without_log_probs())
        self.reporter.say(f"judge: the endpoint gives no log-probabilities; its text is read instead: {judge.name}")
        return judge

    def announce(self, judge: Judge, comparisons: Sequence[Comparison]) -> None:
        assert isinstance(judge, EndpointJudge)
        self.client.announce(judge.questions(comparisons))

    def check_position(self, judge: Judge, comparisons: Sequence[Comparison]) -> None:
        assert isinstance(judge, EndpointJudge)
        values: dict[str, float] = {}
        for outcome in self.client.outcomes:
            values |= outcome.values
        note = position_note(*judge.by_position(comparisons, values), both_orders=judge.both_orders)
        if note is not None:
            self.client.notes.append(note)

    def identity(self, judge: Judge) -> JudgeIdentity:
        assert isinstance(judge, EndpointJudge)
        prompt = official.rubric_text(judge.rubric.name)
        return JudgeIdentity(
            judge=judge.name,
            rubric=judge.rubric.name,
            prompt_sha256=judge.rubric.prompt_sha256,
            order=judge.order,
            texts=texts_used(self.setup.official_benchmark, prompt, source=self.setup.texts),
        )

    def usage(self, judge: Judge) -> JudgeUsage:  # noqa: ARG002  the seam's signature
        return self.client.usage()


@dataclass(frozen=True, slots=True)
class _ScoreSource:
    """Of judges that score answers one by one."""

    setup: RunSetup
    cache: VerdictCache
    reporter: Reporter
    stop: Stop

    def judge(self, sample: Comparison | None) -> RewardJudge | VerifierJudge:  # noqa: ARG002  the seam's signature
        if self.setup.config.judge.kind == "reward":
            return RewardJudge(self.setup, self.cache, reporter=self.reporter, stop=self.stop)
        rows = {} if self.setup.benchmark_name is None else self.setup.benchmark.rows
        return VerifierJudge(self.setup.config, self.cache, rows=rows, reporter=self.reporter, stop=self.stop)

    def announce(self, judge: Judge, comparisons: Sequence[Comparison]) -> None:
        """It costs time only, which its progress bar shows."""

    def check_position(self, judge: Judge, comparisons: Sequence[Comparison]) -> None:
        """It scores each answer alone."""

    def identity(self, judge: Judge) -> JudgeIdentity:
        return JudgeIdentity(
            judge=judge.name,
            rubric="difference of rewards" if isinstance(judge, RewardJudge) else "higher score",
            prompt_sha256=None,
            order="none",
            texts=texts_used(self.setup.official_benchmark, source=self.setup.texts),
        )

    def usage(self, judge: Judge) -> JudgeUsage:
        assert isinstance(judge, RewardJudge | VerifierJudge)
        return judge.usage()
