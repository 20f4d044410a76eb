"""A run on two workers of Ray's TorchTrainer, as docs/cluster.md shows it: `ray_trainer.py WORD…`, trimtab's words."""

from __future__ import annotations

import sys
import tempfile

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def work(config: dict[str, list[str]]) -> None:
    """One worker; Ray has made the process group already."""
    from trimtab.cli import main

    main(config["words"])


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    TorchTrainer(
        work,
        train_loop_config={"words": sys.argv[1:]},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=tempfile.mkdtemp()),
    ).fit()
