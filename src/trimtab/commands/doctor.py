"""What a run will stand on: packages, hardware, folders. Also the run folder's `versions.json`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.version import __version__

PACKAGES = (
    "torch", "transformers", "peft", "datasets", "safetensors", "tokenizers", "numpy", "scikit-learn", "pydantic",
    "matplotlib", "jinja2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hardware:
    """`bf16`: whether an accelerator computes in it; `bf16_products`: whether the CPU has units that multiply such
    numbers faster (AMX, AVX-512 BF16) and torch uses them. `torch_problem`: why torch cannot say, where it cannot."""

    system: str
    processor: str
    cores: int | None
    memory_gb: float
    accelerators: tuple[str, ...]
    bf16: bool
    bf16_products: bool
    torch_problem: str | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """Packages and hardware, as kept in a run folder."""

    trimtab: str
    python: str
    packages: Mapping[str, str]
    hardware: Hardware

    def to_json(self) -> dict[str, Any]:
        hardware = asdict(self.hardware) | {"accelerators": list(self.hardware.accelerators)}
        if self.hardware.torch_problem is None:
            del hardware["torch_problem"]
        return {
            "trimtab": self.trimtab,
            "python": self.python,
            "packages": dict(self.packages),
            "hardware": hardware,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """A folder and the space that its disk has left."""

    name: str
    path: Path
    free_gb: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything a bug report needs; no secrets, no environment."""

    versions: Versions
    places: tuple[Place, ...]
    advice: tuple[str, ...]
    clusters: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        folders = {place.name: {"path": str(place.path), "free_gb": place.free_gb} for place in self.places}
        extra = {"folders": folders, "advice": list(self.advice), "clusters": dict(self.clusters)}
        return self.versions.to_json() | extra


def main() -> Diagnosis:
    packages = versions()
    advice = gpu_advice(packages.hardware, _gpu_makers(), _torch_build())
    return Diagnosis(packages, _places(), advice, _clusters())


def versions() -> Versions:
    return Versions(__version__, sys.version.split()[0], _packages(), _hardware())


def lines(diagnosis: Diagnosis) -> list[str]:
    versions, hardware = diagnosis.versions, diagnosis.versions.hardware
    packages = ", ".join(f"{name} {version}" for name, version in versions.packages.items())
    return [
        f"trimtab {versions.trimtab} on Python {versions.python}, {hardware.system}",
        f"packages     {packages}",
        f"processor    {hardware.processor}, {hardware.cores} cores, {hardware.memory_gb:.1f} GB",
        f"accelerators {', '.join(hardware.accelerators) or 'none'}",
        f"bf16         {_bf16(hardware)}",
        *([f"torch        cannot be used: {hardware.torch_problem}"] if hardware.torch_problem else []),
        f"clusters     {', '.join(f'{name} {state}' for name, state in diagnosis.clusters.items())}",
        *(f"{place.name:12} {place.path} ({place.free_gb:.1f} GB free)" for place in diagnosis.places),
        *(f"advice       {line}" for line in diagnosis.advice),
    ]


def gpu_advice(hardware: Hardware, makers: frozenset[str], build: str | None) -> tuple[str, ...]:
    """What to install so that the GPUs of this machine are used. `makers`: of the GPUs that the system shows;
    `build`: what torch was built for (`CUDA 13.0`, `ROCm 7.1`), None for the CPU alone."""
    if hardware.torch_problem:
        return ("torch cannot be loaded: install it again as pytorch.org/get-started says for this system",)
    if hardware.accelerators:
        is_nvidia = "NVIDIA" in makers and find_spec("bitsandbytes") is None
        return (_QUANTIZED,) if is_nvidia else ()
    maker = "NVIDIA" if "NVIDIA" in makers else "AMD" if "AMD" in makers else None
    if maker is None:
        return ("no GPU is here: nothing to install, the CPU build of torch is all that is needed",)
    platform_name = {"NVIDIA": "CUDA", "AMD": "ROCm"}[maker]
    if build is not None and build.startswith(platform_name):
        return (
            f"torch is built for {build} and finds no {maker} GPU: its driver may be older than that "
            f"({'nvidia-smi' if maker == 'NVIDIA' else 'rocminfo'} says), or hidden from this process",
        )
    ways = [f"the command that pytorch.org/get-started shows for {platform_name}"]
    if maker == "NVIDIA" and hardware.system.startswith("Linux"):
        ways.insert(0, "`pip install --force-reinstall torch`")
    return (f"an {maker} GPU is here and torch is built for {build or 'the CPU'}: {', or '.join(ways)}",)


_QUANTIZED = "`pip install 'trimtab[qlora]'` brings 4-bit weights (--adapter.quantize nf4) and 8-bit Adam"


def _gpu_makers() -> frozenset[str]:
    """Of the GPUs whose drivers the system shows, whatever torch can use."""
    marks = {"NVIDIA": ("/proc/driver/nvidia/version", "/dev/nvidiactl"), "AMD": ("/dev/kfd",)}
    makers = {maker for maker, paths in marks.items() if any(Path(path).exists() for path in paths)}
    return frozenset(makers | ({"NVIDIA"} if shutil.which("nvidia-smi") else set()))


def _torch_build() -> str | None:
    """What torch was built for beside the CPU."""
    try:
        from torch import version
    except (ImportError, OSError):
        return None
    return f"CUDA {version.cuda}" if version.cuda else f"ROCm {version.hip}" if version.hip else None


def _bf16(hardware: Hardware) -> str:
    if hardware.bf16:
        return "yes: engine.dtype auto takes bfloat16 or mixed, if the noise measured on the model is harmless"
    if hardware.bf16_products:
        return "matrix products: engine.dtype auto takes mixed, if the noise measured on the model is harmless"
    return "no: float32 is used"


def _clusters() -> dict[str, str]:
    """What `sweep --on ray` and `--on slurm` need here; nothing is asked of a cluster."""
    return _packages(("ray", "submitit")) | {"sbatch": shutil.which("sbatch") or "not found"}


def _packages(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _hardware() -> Hardware:
    accelerators, bf16, bf16_products, problem = _accelerators()
    return Hardware(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gb=_memory_bytes() / 1e9,
        accelerators=accelerators,
        bf16=bf16,
        bf16_products=bf16_products,
        torch_problem=problem,
    )


def _accelerators() -> tuple[tuple[str, ...], bool, bool, str | None]:
    """Their names, whether they and whether the CPU have bfloat16 units; why torch cannot say, where it cannot."""
    try:
        import torch

        from trimtab.engine import mixed

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            names.append("Apple MPS")
        return tuple(names), mixed.has_units("cuda"), mixed.has_units("cpu"), None
    except (ImportError, OSError, RuntimeError) as error:  # not installed, or CUDA's libraries or driver are not there
        return (), False, False, f"{error}".partition("\n")[0]


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        import psutil

        return int(psutil.virtual_memory().total)


def _places() -> tuple[Place, ...]:
    places = []
    for name, path in (("here", Path.cwd()), ("cache", store.home())):
        nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        places.append(Place(name, path, shutil.disk_usage(nearest).free / 1e9))
    return tuple(places)
