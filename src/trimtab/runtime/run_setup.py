"""A run, resolved: what the words of its configuration stand for on this machine, each worked out once.

Stages take a `RunSetup` and none of them asks the configuration again. What costs nothing is a field. What needs torch,
the model's folder or the network is worked out when it is first asked for, so that a report needs no model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import store, windtunnel
from trimtab.config import Config
from trimtab.engine import gguf_file, identity
from trimtab.engine.processes import ALONE, Processes
from trimtab.errors import ConfigError, ModelError
from trimtab.judging.benchmarks import Benchmark
from trimtab.judging.official import Name
from trimtab.judging.official_texts import Source
from trimtab.objectives import Objective
from trimtab.runtime import benchmark_prompts
from trimtab.runtime.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from trimtab.engine.memory import Shape
    from trimtab.engine.models import Precision
    from trimtab.engine.order import Order
    from trimtab.records import TokenPair

# For some thousand pairs: at a tenth of them a real model's held-out loss had hardly left ln 2 (docs/findings.md,
# "Learning rates on a real model"). An adapter starts at zero and takes a tenfold rate.
FULL_RATE, ADAPTER_RATE = 1e-5, 1e-4


@dataclass(frozen=True)
class RunSetup:
    """One run, or the runs of several seeds in one folder (`each_seed`). `config` has the keys as they were written."""

    config: Config
    folder: Folder
    objective: Objective
    peak_learning_rate: float
    benchmark_name: str | None
    """Under which answers and verdicts are filed; None when nothing is asked."""
    official_benchmark: Name | None
    """The benchmark, where it is one that is known by name."""
    processes: Processes = ALONE
    """Those that make this run together."""

    def each_seed(self) -> list[RunSetup]:
        """The runs that a configuration with several seeds stands for, each in a folder of its own below `out`."""
        config = self.config
        if config.seeds == 1:
            return [self]
        return [
            set_up(
                config.model_copy(update={"seed": seed, "seeds": 1, "out": f"{config.out}/seed-{seed}"}),
                processes=self.processes,
            )
            for seed in range(config.seed, config.seed + config.seeds)
        ]

    @property
    def apart(self) -> RunSetup:
        """The same run for work that one of several processes does alone."""
        return self if self.processes.alone else replace(self, processes=self.processes.apart)

    # --- the model ---------------------------------------------------------------------------------------------------

    @cached_property
    def model_folder(self) -> Path:
        """The unaligned model's local folder: embedded, given as a path, or fetched from the Hub into its cache.

        Where an adapter was named it is a plain folder with the adapter merged into its base; where a template was, one
        of links with the template among them.
        """
        model, folder = self.config.model, self._plain(self.source_folder)
        if model.template is None:
            return folder
        from trimtab.runtime.templated_model import with_template

        return with_template(folder, model.template, model=model.name)

    @cached_property
    def source_folder(self) -> Path:
        """The folder that `model.name` names, as it is: an adapter's, too. Of a GGUF file, what it was unpacked to."""
        model = self.config.model
        if model.name == windtunnel.NAME:
            return windtunnel.model_folder()
        if (base := self._base_from_elsewhere) is not None:
            return base
        if self._gguf_file is not None:
            from trimtab.engine import gguf_model

            return gguf_model.plain_folder(self._gguf_file)
        try:
            return identity.folder_of(model.name, revision=model.revision, offline=self.config.offline)
        except ModelError as error:
            if not self.folder.config.is_file():
                raise
            advice = f"if {model.name} is a folder, go to where the run was made, from which its path was given"
            raise ModelError(error.message, remedy=f"{advice}; else {error.remedy}") from error

    @property
    def is_hub_model(self) -> bool:
        """Whether `model.name` is a name on the Hub, and no folder or file of this machine."""
        name = self.config.model.name
        is_here = name == windtunnel.NAME or Path(name).is_dir() or self._base_from_elsewhere is not None
        return not is_here and self._gguf_file is None

    @cached_property
    def _base_from_elsewhere(self) -> Path | None:
        """The base that the run's adapter names, where `model.name` is a path that was given in another folder and
        leads nowhere from this one."""
        name, folder = self.config.model.name, self.folder
        if self.config.model.gguf is not None or Path(name).exists() or not identity.is_adapter(folder.model):
            return None
        if not folder.config.is_file() or store.read_json(folder.config)["model"]["name"] != name:
            return None
        base = Path(identity.base_of(folder.model))
        return base if base.is_absolute() and base.is_dir() else None

    @cached_property
    def _gguf_file(self) -> Path | None:
        model = self.config.model
        if model.gguf is None:
            return _gguf_path(model.name)
        from trimtab.engine import gguf_model

        return gguf_model.fetch(model.name, model.gguf, revision=model.revision, offline=self.config.offline)

    @property
    def gguf_source(self) -> gguf_file.GgufSource | None:
        """The GGUF file that the model was unpacked from, if it was, by the name that it has now."""
        source, file = gguf_file.source_of(self.source_folder), self._gguf_file
        return source if source is None or file is None else replace(source, file=file.name)

    @cached_property
    def model_identity(self) -> identity.ModelIdentity:
        """Digests of the unaligned model's files."""
        return identity.identify(str(self.model_folder), offline=self.config.offline)

    @cached_property
    def reference_folder(self) -> Path:
        """Of the frozen reference: the unaligned model's, unless another one is configured."""
        name = self.config.model.reference
        if name is None:
            return self.model_folder
        if (file := _gguf_path(name)) is not None:
            from trimtab.engine import gguf_model

            return gguf_model.plain_folder(file)
        return self._plain(identity.folder_of(name, offline=self.config.offline))

    def _plain(self, folder: Path) -> Path:
        """`folder`; of an adapter, one with the adapter merged into its base."""
        if not identity.is_adapter(folder):
            return folder
        from trimtab.engine import models

        trust = self.config.model.trust_remote_code
        return models.plain_folder(folder, trust_remote_code=trust, offline=self.config.offline)

    @property
    def begins_at_reference(self) -> bool:
        """Whether policy and reference are one model before the first step."""
        return self.config.model.reference is None

    @property
    def lora_options(self) -> dict[str, Any] | None:
        """Keywords of `trainable.attach_lora`; None for full fine-tuning."""
        adapter = self.config.adapter
        if adapter.kind == "none":
            return None
        return {
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "dropout": adapter.dropout,
            "targets": adapter.targets,
            "dora": adapter.dora,
            "seed": self.config.seed,
        }

    @cached_property
    def memory_shape(self) -> Shape:
        """The model with its adapter, as far as memory and time go; no weights are read."""
        from trimtab.engine import memory

        config = self.config
        shape = memory.Shape.of_folder(
            self.model_folder,
            lora=self.lora_options,
            freeze_embeddings=config.train.freeze_embeddings,
            quantize=config.adapter.quantize != "none",
            trust_remote_code=config.model.trust_remote_code,
        )
        return shape.scoring() if self.objective.on_scores else shape

    # --- the machine -------------------------------------------------------------------------------------------------

    @cached_property
    def device(self) -> torch.device:
        from trimtab.engine import models

        return models.pick_device(self.config.engine.device)

    @property
    def precision(self) -> Precision:
        """As configured, or as it was settled for this run; until then the likeliest."""
        from trimtab.engine import half, mixed, models

        configured, has_units = self.config.engine.dtype, mixed.has_units(self.device.type)
        if configured != "auto":
            precision: Precision = configured
        elif self.folder.precision.is_file():
            precision = store.read_json(self.folder.precision)["precision"]
        elif has_units and not self.objective.on_scores:
            precision = next(iter(models.candidates(self.device, parameters=self.memory_shape.parameters)), "float32")
        else:
            precision = "float32"
        if precision == "mixed" and not has_units:
            raise ConfigError(
                f"engine.dtype is mixed, but this {self.device.type} has no bfloat16 units that torch makes use of",
                remedy="Use engine.dtype float32, or auto in a new run, which takes what this machine has.",
            )
        if precision == "float16" and not half.has_units(self.device.type):
            raise ConfigError(
                f"engine.dtype is float16, but this {self.device.type} has no units that multiply float16 numbers",
                remedy="Use engine.dtype auto, which takes what this machine has.",
            )
        return precision

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        from trimtab.engine import models

        is_open = self.config.engine.dtype == "auto" and self.device.type == "cuda"
        return models.pick_dtype(self.precision if is_open else self.config.engine.dtype, self.device)

    @cached_property
    def threads(self) -> int:
        """CPU threads: as configured, else all that this process may run on, or its part where several share them."""
        import torch

        if self.config.engine.threads is not None:
            return self.config.engine.threads
        if "OMP_NUM_THREADS" in os.environ:
            return torch.get_num_threads()  # set by whoever shares this machine out
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, threads // self.processes.local_size)

    def use_threads(self) -> None:
        """This process computes with `threads` threads from here on."""
        import torch

        torch.set_num_threads(self.threads)

    # --- training ----------------------------------------------------------------------------------------------------

    def training_order(self, pairs: Sequence[TokenPair]) -> Order:
        """Which of these training pairs make up each optimizer step. Raises ConfigError where unpaired rows of one kind
        would be alone in a batch."""
        from trimtab.engine.grouping import order_by, order_of_unpaired

        order = self.order(len(pairs))
        if self.objective.is_unpaired:
            return order_of_unpaired(order, pairs)
        return order_by(self.config.train.group_by, order, pairs)

    def order(self, n_pairs: int) -> Order:
        """How many steps and epochs `n_pairs` training pairs make; which pairs meet in a step is not asked."""
        from trimtab.engine.order import Order

        train = self.config.train
        return Order(n_pairs, train.batch_pairs, train.epochs, self.config.seed, train.max_steps)

    # --- the benchmark -----------------------------------------------------------------------------------------------

    @cached_property
    def benchmark(self) -> Benchmark:
        """The prompts. Raises DataError where they cannot be read."""
        return benchmark_prompts.read_prompts(self.config)

    @cached_property
    def texts(self) -> Source:
        """Where the official texts of benchmarks and judges come from."""
        return benchmark_prompts.texts_source(self.config)


def set_up(config: Config, *, processes: Processes = ALONE) -> RunSetup:
    """The run that a configuration describes, made by these processes. Nothing is loaded, fetched or written yet."""
    train, objective = config.train, config.objective.value()
    return RunSetup(
        config=config,
        folder=Folder(Path(config.out)),
        objective=objective,
        peak_learning_rate=train.learning_rate or (ADAPTER_RATE if config.adapter.kind == "lora" else FULL_RATE),
        benchmark_name=benchmark_prompts.file_name(config.benchmark),
        official_benchmark=benchmark_prompts.official_name(config.benchmark),
        processes=processes,
    )


def _gguf_path(name: str) -> Path | None:
    """The GGUF file that a model is named by; None where a folder or a Hub model is named."""
    path = Path(name)
    return path if path.is_file() or path.suffix.lower() == gguf_file.SUFFIX else None
