"""The libraries: where each keeps a run, how a run that goes on finds it again, and what it makes of numbers.

Names of metrics are letters, digits, `_` and `/`, names of keys have dots, and a project is letters, digits, `-` and
`_`: all four take these as they are. Each class is used in a process of its own (`tracking.process`).
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """`id`: eight hex digits, the same in every life of the run; `is_known`: there was a life before this one."""

    folder: str
    project: str
    name: str
    config: Mapping[str, Any]
    offline: bool
    id: str
    is_known: bool

    @property
    def tracking(self) -> Path:
        return Path(self.folder) / "tracking"


class Tracker(Protocol):
    """A library. What it raises ends its process, and not the run."""

    def begin(self, run: TrackedRun, /) -> None: ...

    def log(self, values: Values, *, step: int) -> None: ...

    def end(self, outcome: str, report: str | None, /) -> None:
        """`outcome`: done, stopped or failed; `report`: the page's path."""


class TensorBoard:
    """Event files in `tracking/tensorboard`; another life adds a file, and readers join them. Scalars are float32."""

    def begin(self, run: TrackedRun, /) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(logdir=str(run.tracking / "tensorboard"), flush_secs=5)
        if not run.is_known:
            self._writer.add_text("config", _table(run.config), 0)
        self._step = 0

    def log(self, values: Values, *, step: int) -> None:
        self._step = max(self._step, step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def end(self, outcome: str, report: str | None, /) -> None:
        self._writer.add_text("outcome", outcome if report is None else f"{outcome}, report: {report}", self._step)
        self._writer.close()


class WandB:
    """Offline below `tracking/wandb`, for `wandb sync`, unless there is a key or `$WANDB_MODE` says otherwise."""

    def begin(self, run: TrackedRun, /) -> None:
        import wandb

        has_key = bool(wandb.api.api_key)
        mode = "offline" if run.offline or not has_key else "online"
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.tracking),
            config=dict(run.config),
            mode=os.environ.get("WANDB_MODE", mode),
            # of this process, which is not the run
            settings=wandb.Settings(console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True),
        )
        self._run.define_metric("*", step_metric="trainer_step")

    def log(self, values: Values, *, step: int) -> None:
        self._run.log({**values, "trainer_step": step})

    def end(self, outcome: str, report: str | None, /) -> None:
        self._run.summary["outcome"], self._run.summary["report"] = outcome, report
        self._run.finish(exit_code=0 if outcome == "done" else 1)


class MlFlow:
    """In `$MLFLOW_TRACKING_URI`, or where mlflow keeps runs by itself. It takes no infinity and no NaN (an infinity
    comes back as 1.8e308): such a value is left out, and a tag says so."""

    _STATES: Mapping[str, str] = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}

    def begin(self, run: TrackedRun, /) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric = MlflowClient(), Metric
        experiment = self._client.get_experiment_by_name(run.project)
        experiment_id = self._client.create_experiment(run.project) if experiment is None else experiment.experiment_id
        if before := self._client.search_runs([experiment_id], f"tags.`trimtab.id` = '{run.id}'"):
            self._id = before[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {"trimtab.id": run.id, "trimtab.folder": run.folder}
        self._id = self._client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id
        parameters = [Param(name, str(value)[:500]) for name, value in run.config.items()]
        for start in range(0, len(parameters), 100):  # as many as a request takes
            self._client.log_batch(self._id, params=parameters[start : start + 100])

    def log(self, values: Values, *, step: int) -> None:
        now = int(time.time() * 1000)
        finite = [self._metric(name, value, now, step) for name, value in values.items() if math.isfinite(value)]
        self._client.log_batch(self._id, metrics=finite)
        if len(finite) < len(values):
            names = [name for name, value in values.items() if not math.isfinite(value)]
            self._client.set_tag(self._id, "trimtab.not_finite", f"step {step}: {', '.join(names)}")

    def end(self, outcome: str, report: str | None, /) -> None:
        if report is not None:
            self._client.set_tag(self._id, "trimtab.report", report)
        self._client.set_terminated(self._id, status=self._STATES[outcome])


class Trackio:
    """In trackio's own folder (`$TRACKIO_DIR`), unless `$TRACKIO_SPACE_ID` names a Space. It finds a run by its name,
    so that ends in `id`. What it cannot keep it only warns of: here the first such warning is an error at the end."""

    def begin(self, run: TrackedRun, /) -> None:
        self._warnings: list[str] = []
        warnings.simplefilter("always")
        warnings.showwarning = self._note_warning
        import trackio

        self._trackio = trackio
        name = f"{run.name}-{run.id}"
        trackio.init(
            project=run.project, name=name, config=dict(run.config), resume="allow", embed=False,
            auto_log_cpu=False, auto_log_gpu=False,
        )  # fmt: skip
        self._step = 0

    def _note_warning(self, message: Warning | str, *_: object, **__: object) -> None:
        if str(message).startswith("trackio."):
            self._warnings.append(str(message))

    def log(self, values: Values, *, step: int) -> None:
        self._step = max(self._step, step)
        self._trackio.log(dict(values), step=step)

    def end(self, outcome: str, report: str | None, /) -> None:
        text = outcome if report is None else f"{outcome}, report: {report}"
        self._trackio.log({"outcome": self._trackio.Markdown(text)}, step=self._step)
        self._trackio.finish()
        if self._warnings:
            raise RuntimeError(self._warnings[0])


def _table(config: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [f"| {name} | `{json.dumps(value)}` |" for name, value in config.items()]
    return "\n".join(["| key | value |", "|---|---|", *lines])


LIBRARIES: Mapping[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MlFlow,
    "trackio": Trackio,
}
