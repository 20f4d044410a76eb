"""Generate: the aligned and the unaligned model answer the benchmark's prompts, with the same decoding and seed."""

from __future__ import annotations

from dataclasses import asdict

from trimtab import store
from trimtab.config import Config, config_digest
from trimtab.engine import identity
from trimtab.judging.benchmarks import Benchmark
from trimtab.progress import Reporter
from trimtab.records import Answer, Message, digest
from trimtab.stages.answering import Spoken, answer
from trimtab.stages.folder import Folder
from trimtab.stages.inputs import benchmark, benchmark_name, model_folder

SEED = 0  # of decoding: one noise for every training seed, so the unaligned model answers once for all of them


def main(config: Config, *, reporter: Reporter) -> None:
    """Write `answers/<benchmark>.json` and, from the unaligned model or the benchmark itself, `….baseline.json`."""
    name = benchmark_name(config)
    if name is None:
        return
    folder = Folder.of(config)
    aligned = folder.require(folder.model, "train")
    asked = benchmark(config)
    model = identity.identify(str(aligned))
    inputs = digest([asdict(model), asked.digest, config_digest(config, "generate", "model"), SEED])
    if folder.is_done("generate", inputs):
        reporter.say(f"generate: {name} is answered already")
        return
    prompts = [(Message("user", prompt.instruction),) for prompt in asked.prompts]

    def speak(where: str, what: str) -> list[Spoken]:
        source = aligned if where == "aligned" else model_folder(config)
        return answer(source, prompts, config=config, decoding=config.generate, seed=SEED, reporter=reporter, what=what)

    after = _filed(asked, speak("aligned", "answers of the aligned model"), generator=f"{config.model.name} aligned")
    if asked.has_baseline:
        before = [prompt.baseline_answer() for prompt in asked.prompts]
    else:
        before = _filed(asked, speak("unaligned", "answers of the unaligned model"), generator=config.model.name)
    paths = (folder.answers(name), folder.baseline_answers(name))
    for path, answers in zip(paths, (after, before), strict=True):
        store.write_json(path, [one.to_json() for one in answers])
    folder.finish("generate", inputs, paths)


def _filed(asked: Benchmark, spoken: list[Spoken], *, generator: str) -> list[Answer]:
    return [
        Answer(prompt.id, prompt.instruction, one.text, generator, prompt.dataset, one.n_tokens, one.finished)
        for prompt, one in zip(asked.prompts, spoken, strict=True)
    ]
