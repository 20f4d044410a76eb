"""Interim, for rooms that still hand the configuration around: ask `run_setup` and `benchmark_prompts` instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab import windtunnel
from trimtab.config import Config
from trimtab.judging import official
from trimtab.judging.benchmarks import Benchmark
from trimtab.judging.official_texts import Source, Text
from trimtab.runtime import benchmark_prompts
from trimtab.runtime.run_setup import set_up

EMBEDDED = windtunnel.NAME


def model_folder(config: Config) -> Path:
    return set_up(config).model_folder


def benchmark_name(config: Config) -> str | None:
    return benchmark_prompts.file_name(config.benchmark)


def benchmark(config: Config) -> Benchmark:
    return benchmark_prompts.read_prompts(config)


def texts(config: Config) -> Source:
    return benchmark_prompts.texts_source(config)


def official_name(config: Config) -> official.Name | None:
    return benchmark_prompts.official_name(config.benchmark)


def length_tables(config: Config) -> official.LengthTables | None:
    return benchmark_prompts.length_tables(official_name(config), source=texts(config))


def texts_used(config: Config, *judged_by: Text) -> dict[str, Any]:
    return benchmark_prompts.texts_used(official_name(config), *judged_by, source=texts(config))


def eval_tasks(config: Config) -> tuple[windtunnel.Task, ...]:
    return benchmark_prompts.evaluation_tasks(config.windtunnel.prompts)
