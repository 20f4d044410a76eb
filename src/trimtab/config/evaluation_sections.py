"""The sections of what comes after training: how models answer, what they are asked, and who judges."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from trimtab.config.section import OnOff, Section


class GenerateSection(Section):
    sampler: Literal["local", "openai"] = Field(
        "local", description="local, or openai: a server that speaks OpenAI's protocol (vLLM, llama.cpp, Ollama)"
    )
    base_url: str | None = Field(None, description="the sampler's server, where it is not base_url")
    served_as: str | None = Field(None, description="the aligned model's name at that server")
    unaligned_served_as: str | None = Field(None, description="the unaligned model's name at that server")
    max_new_tokens: int = Field(512, ge=1, description="an answer is cut there")
    temperature: float | None = Field(
        None, ge=0, description="0 is greedy; default .7, and MT-Bench's own by category there"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="sample among the likeliest tokens of this total probability")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: tokens already there become less likely")
    batch_tokens: int = Field(32_768, ge=1, description="KV-cache positions of one decoding batch")
    seed: int = Field(0, ge=0, description="of decoding; the same for every training seed")


class BenchmarkSection(Section):
    name: str = Field(
        "none",
        description="none, windtunnel, alpaca_eval, alpaca_eval_1, mt_bench, or a file of prompts (JSON, CSV, text)",
    )
    limit: int | None = Field(None, ge=1, description="only the first N prompts")
    dir: str | None = Field(None, description="folder with the official texts, instead of fetching them")
    unaligned: OnOff = Field(
        "on", description="where answers are judged against a published baseline, judge the unaligned model's too"
    )


class JudgeSection(Section):
    name: str = Field(
        "none",
        description="none, oracle (the embedded world's truth, beside judges with and without a length bias), "
        "openai:MODEL (a server that speaks OpenAI's protocol), reward:MODEL (a local reward model), or a program that "
        "scores answers: FILE.py:FUNCTION or command:WORDS",
    )
    rubric: Literal["auto", "weighted", "chosen", "ranking"] = Field(
        "auto",
        description="AlpacaEval 2's prompt read by log-probabilities (weighted) or by its text (chosen), or AlpacaEval "
        "1's (ranking); auto: the benchmark's own, and chosen where the server gives no log-probabilities",
    )
    both_orders: bool = Field(False, description="ask twice with the answers swapped, and average")
    allow_missing: bool = Field(False, description="give a headline number though more than 1 % was not judged")
    max_cost: float | None = Field(
        None, gt=0, description="stop before the judge has cost more, in US dollars, for each seed"
    )
    input_price: float | None = Field(None, ge=0, description="US dollars a million prompt tokens")
    output_price: float | None = Field(None, ge=0, description="US dollars a million sampled tokens")
    concurrency: int = Field(8, ge=1, le=256, description="requests under way at once, at most")
    timeout: float = Field(60.0, gt=0, description="seconds until a request counts as lost")
    verifier_seconds: float = Field(10.0, gt=0, description="time limit of a program that scores, for one answer")
    canaries: int = Field(20, ge=0, description="prompts on which each canary is judged; 0 for none")

    @field_validator("name")
    @classmethod
    def _is_a_judge(cls, value: str) -> str:
        if value in ("none", "oracle") or re.fullmatch(r"(openai|reward):\S+|command:.*\S.*|.+\.py(:\w+)?", value):
            return value
        near = f"; did you mean openai:{value}?" if re.fullmatch(r"[\w./-]+", value) else ""
        raise ValueError(
            "no such judge: there are none, oracle, openai:MODEL, reward:MODEL, FILE.py:FUNCTION and command:WORDS"
            + near
        )

    @property
    def kind(self) -> str:
        """none, oracle, openai, reward or verifier."""
        word = self.name.partition(":")[0]
        return word if word in ("none", "oracle", "openai", "reward") else "verifier"

    @property
    def model(self) -> str:
        """What comes after the colon."""
        return self.name.partition(":")[2]
