"""What the children of the reliability tests do: each of trimtab's writers, and whole small runs.

Values are a function of their number, so that whoever reads them later knows what must be there.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import peft  # noqa: F401  # the children find it imported
import torch
import torch._dynamo  # any first optimizer imports it
from torch import nn
from transformers import Qwen2ForCausalLM  # noqa: F401  # the children find it imported

from stage_runs import Recorder, make_config, make_pairs, make_pairs_of, prepare, without_clock
from trimtab import store
from trimtab.engine import allocation, checkpoint, reference
from trimtab.engine.optim import AdamW
from trimtab.engine.packing import Group
from trimtab.engine.reference import ReferenceKey
from trimtab.judging.verdict_cache import VerdictCache
from trimtab.records import TokenPair
from trimtab.runtime import set_up
from trimtab.stages import reference as reference_stage
from trimtab.stages import train as train_stage
from trimtab.studies.sweep.job import Outcome
from trimtab.studies.sweep.run_table import Run, RunTable

Tell = Callable[[Any], None]
IDENTITY = {"objective.beta": 0.1, "data": "a" * 64}

torch.set_num_threads(1)


# --- the checkpoint writer ------------------------------------------------------------------------------------------


def net() -> tuple[nn.Module, AdamW]:
    """About 300 kB of weights and moments, so that a write takes a while."""
    model = nn.Sequential(nn.Linear(64, 200), nn.Linear(200, 64))
    return model, AdamW(model, weight_decay=0.0)


def set_to(model: nn.Module, optimizer: AdamW, step: int) -> None:
    """Weights and generator that say which step they are of."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(step))
            parameter.grad = torch.ones_like(parameter)
    torch.manual_seed(step)
    if not optimizer.state():
        optimizer.step(learning_rate=0.0)


def save_checkpoint(parent: Path, step: int) -> None:
    model, optimizer = net()
    set_to(model, optimizer, step)
    checkpoint.save(parent, step=step, optimizer=optimizer, identity=IDENTITY, extra={"said": step})


def save_checkpoints(tell: Tell, parent: Path, first: int) -> None:
    model, optimizer = net()
    set_to(model, optimizer, first)
    tell("ready")
    for step in range(first, first + 10_000):
        set_to(model, optimizer, step)
        checkpoint.save(parent, step=step, optimizer=optimizer, identity=IDENTITY, extra={"said": step})
        tell(step)


def newest_checkpoint(parent: Path) -> tuple[int, list[str]]:
    """The step of the newest checkpoint, every tensor of which is that step's (0: there is none); what was damaged."""
    found, problems = checkpoint.find(parent, identity=IDENTITY)
    if found is None:
        return 0, problems
    assert found.extra == {"said": found.step}
    model, optimizer = net()
    checkpoint.load(found, optimizer)
    assert all(bool((parameter == found.step).all()) for parameter in model.parameters())
    assert optimizer.state()
    drawn = torch.rand(3)
    torch.manual_seed(found.step)
    assert torch.equal(drawn, torch.rand(3))
    return found.step, problems


# --- the reference cache --------------------------------------------------------------------------------------------

KEY = ReferenceKey("w" * 64, None, "t" * 64, (512, 512), "float32", "cpu", True)


def pair(number: int) -> TokenPair:
    return TokenPair(f"rows.jsonl:{number}", (number, 1), (number,) * 40, (number, 2) * 20)


class Numbers:
    """Log-probabilities that are a function of the token ids."""

    def by_key(self, groups: Sequence[Group], *, pack_tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
        assert pack_tokens > 0
        for group in groups:
            for key, ids in zip(group.keys, group.responses, strict=True):
                yield key, row_of(ids)


def row_of(ids: Sequence[int]) -> torch.Tensor:
    return -torch.tensor(ids, dtype=torch.float32) / 1000


def fill_cache(numbers: Sequence[int]) -> None:
    what = reference.missing(reference.read(KEY, []), [pair(number) for number in numbers])
    assert reference.compute(what, key=KEY, scorer=Numbers(), pack_tokens=100)


def fill_the_cache(tell: Tell, first: int) -> None:
    tell("ready")
    for number in range(first, first + 10_000):
        fill_cache([number])
        tell(number)


def cached(upto: int) -> tuple[int, reference.Reference]:
    """How many of the pairs below `upto` the cache has, each with both rows exactly right."""
    held = reference.read(KEY, [pair(number) for number in range(upto)])
    n = 0
    for one in map(pair, range(upto)):
        if not reference.missing(held, [one]).groups:
            chosen, rejected = held.of_pairs([one])
            assert torch.equal(chosen, row_of(one.chosen_ids))
            assert torch.equal(rejected, row_of(one.rejected_ids))
            n += 1
    return n, held


# --- the verdict cache ----------------------------------------------------------------------------------------------


def put_verdict(kept: VerdictCache, number: int) -> None:
    kept.put(
        str(number),
        judge="judge",
        subject=f"prompt {number}",
        value=number / 7,
        reply={"text": f"reply {number} " * 60},
    )


def put_verdicts(tell: Tell, path: Path, first: int) -> None:
    with store.database(path) as connection:
        kept = VerdictCache(connection)
        tell("ready")
        for number in range(first, first + 100_000):
            if number % 3 == 0:  # a failure first, which the verdict replaces
                kept.fail(str(number), judge="judge", subject="p", kind="timeout", message="slow", attempts=2)
            put_verdict(kept, number)
            tell(number)


def verdicts(path: Path, upto: int) -> set[int]:
    """The verdicts below `upto` that are there, each exactly right, and none with a failure beside it."""
    with store.database(path) as connection:
        kept = VerdictCache(connection)
        found = kept.get(str(number) for number in range(upto))
        assert not kept.failures(found)
    for key, row in found.items():
        number = int(key)
        assert (row.value, row.subject, row.judge) == (number / 7, f"prompt {number}", "judge")
        assert row.reply == {"text": f"reply {number} " * 60}
    return {int(key) for key in found}


# --- the sweep's ledger ---------------------------------------------------------------------------------------------


def plan_and_work_off_runs(tell: Tell, path: Path) -> None:
    """Never done: twenty runs more are planned whenever none is left."""
    with store.database(path) as connection:
        table = RunTable(connection)
        tell("ready")
        while True:
            work_off(table, tell)
            n = len(table.runs()) + 20
            runs = [Run(f"p{i}", f"p{i}", 0, str(path.parent / f"p{i}"), {}, {"x": i}, f"key {i}") for i in range(n)]
            table.plan(runs, retry_failed=False, stop_starved=False)


def work_off_runs(tell: Tell, path: Path) -> None:
    with store.database(path) as connection:
        work_off(RunTable(connection), tell)


def work_off(table: RunTable, tell: Tell) -> None:
    for run in [run for run in table.runs() if run.state != "done"]:
        table.start(run)
        store.write_json(Path(run.folder) / "report.json", {"of": run.name})  # without it a run is not done
        table.finish(run, Outcome("done", 1.0, {run.name: 1.0}))
        tell(run.name)


def finished_runs(path: Path) -> tuple[set[str], int]:
    """Names of the runs that are done, and how many are planned."""
    with store.database(path) as connection:
        runs = RunTable(connection).runs()
    done = {run.name for run in runs if run.state == "done"}
    assert all(run.task_seconds == {run.name: 1.0} and run.seconds == 1.0 for run in runs if run.state == "done")
    assert all(run.state in ("waiting", "running") for run in runs if run.state != "done")
    return done, len(runs)


# --- whole runs -----------------------------------------------------------------------------------------------------


class Telling(Recorder):
    """Tells each step of training when it is done, and what was said."""

    def __init__(self, tell: Tell, *, at: int | None = None, act: Any = None) -> None:
        super().__init__(at=None)
        self.tell, self.at, self.act = tell, at, act
        self.at_training: Callable[[], None] = lambda: None

    def say(self, line: str, /) -> None:
        self.tell(("said", line))

    def track(self, description: str, /, *, n_done: int = 0, **_total_and_unit: Any) -> Any:
        if description == "training":
            self.tell(("training", n_done))
            self.at_training()
        return _Advancing(self, description, n_done)


class _Advancing:
    def __init__(self, to: Telling, description: str, done: int) -> None:
        self.to, self.description, self.done = to, description, done

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        if self.description == "training":
            self.to.tell(("left", self.done))

    def __call__(self, n: int = 1, /, **_figures: Any) -> None:
        self.done += n
        if self.description == "training":
            self.to.tell(("step", self.done))
            if self.done == self.to.at:
                self.to.act()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train(
    tell: Tell,
    out: Path,
    model: Path,
    sections: dict[str, Any],
    kill_at: int | None = None,
    limits: dict[int, int] | None = None,
    resume_anyway: bool = False,
) -> None:
    """Prepare, reference and train on 24 pairs, with a real kill after step `kill_at`, under limits of the system."""
    config = make_config(out, model, **sections)
    if not (out / "data").exists():
        prepare(config, make_pairs(24), make_pairs(4, seed=1, name="held"))
    reporter = Telling(tell, at=kill_at, act=die)
    reference_stage.main(set_up(config), reporter=reporter)
    for which, limit in (limits or {}).items():
        resource.setrlimit(which, (limit, resource.RLIM_INFINITY))
    train_stage.main(set_up(config), reporter=reporter, resume_anyway=resume_anyway)


def as_user(tell: Tell, number: int, work: Callable[..., None], *arguments: Any) -> None:
    """`work` as a user who is not root."""
    os.setgid(number)
    os.setuid(number)
    work(tell, *arguments)


def write_note(tell: Tell, path: Path) -> None:
    store.write_json(path, {"a": 1})


def open_verdicts(tell: Tell, path: Path) -> None:
    with store.database(path) as connection:
        put_verdict(VerdictCache(connection), 1)


def train_under_a_limit(tell: Tell, out: Path, model: Path, pack_tokens: int) -> None:
    """Two steps of 16 long pairs; addresses are limited to what is held when training begins, and 400 MB."""
    told = {
        "train": {"epochs": 1, "batch_pairs": 16, "max_steps": 2, "learning_rate": 1e-4},
        "engine": {"pack_tokens": pack_tokens, "screening": "off"},
    }
    config = make_config(out, model, **told)
    prepare(config, make_pairs_of(32, prompt=60, response=120))
    reference_stage.main(
        set_up(make_config(out, model, engine={"pack_tokens": 300})), reporter=Recorder()
    )  # within the limit, and the same for both
    allocation.settle_allocation(lean=True)
    allocation.give_back()

    def limit() -> None:
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        held = int(next(row.split()[1] for row in status if row.startswith("VmSize"))) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (held + 400_000_000, resource.RLIM_INFINITY))

    reporter = Telling(tell)
    reporter.at_training = limit
    train_stage.main(set_up(config), reporter=reporter)


def outcome(out: Path) -> dict[str, Any]:
    """All that a finished run is, less what depends on the machine's speed: bytes of tensors, values of the rest."""
    last = max((out / "checkpoints").glob("step-*"))
    tensors = [*last.glob("*.safetensors"), *(out / "model").glob("*.safetensors")]
    state = store.read_json(last / "state.json")
    del state["extra"]["seconds"]
    return {
        **{path.relative_to(out).as_posix(): path.read_bytes() for path in tensors},
        "state": state,
        "metrics": without_clock(store.read_jsonl(out / "metrics.jsonl")),
        "visits": (out / "visits.jsonl").read_bytes(),
        "heldout": store.read_json(out / "heldout.json"),
        "selection": store.read_json(out / "selection.json"),
    }


def same(one: Path, two: Path) -> None:
    """Bit-equal outcomes of two runs."""
    a, b = outcome(one), outcome(two)
    assert a.keys() == b.keys()
    assert len([name for name in a if name.endswith(".safetensors")]) == 4
    assert [name for name in a if a[name] != b[name]] == []
