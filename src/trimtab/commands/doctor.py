"""What a run will stand on: packages, hardware, folders. Also the run folder's `versions.json`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.version import __version__

PACKAGES = (
    "torch", "transformers", "peft", "datasets", "safetensors", "tokenizers", "numpy", "scikit-learn", "pydantic",
    "matplotlib", "jinja2",
)  # fmt: skip


def main() -> dict[str, Any]:
    """Everything a bug report needs; no secrets, no environment."""
    return versions() | {"folders": _folders()}


def versions() -> dict[str, Any]:
    """Packages and hardware, as kept in a run folder."""
    return {
        "trimtab": __version__,
        "python": sys.version.split()[0],
        "packages": _packages(),
        "hardware": _hardware(),
    }


def lines(told: dict[str, Any]) -> list[str]:
    hardware = told["hardware"]
    accelerators = ", ".join(hardware["accelerators"]) or "none"
    return [
        f"trimtab {told['trimtab']} on Python {told['python']}, {hardware['system']}",
        "packages     " + ", ".join(f"{name} {version}" for name, version in told["packages"].items()),
        f"processor    {hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gb']:.1f} GB",
        f"accelerators {accelerators}",
        f"bf16         {'yes' if hardware['bf16'] else 'no: float32 is used'}",
        *(f"{name:12} {entry['path']} ({entry['free_gb']:.1f} GB free)" for name, entry in told["folders"].items()),
    ]


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _hardware() -> dict[str, Any]:
    import torch

    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("Apple MPS")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_bytes() / 1e9,
        "accelerators": accelerators,
        "bf16": bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported()),
    }


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
    except (AttributeError, ValueError, OSError):
        return 0


def _folders() -> dict[str, dict[str, Any]]:
    places = {"here": Path.cwd(), "cache": store.home()}
    found: dict[str, dict[str, Any]] = {}
    for name, path in places.items():
        existing = next(p for p in (path, *path.absolute().parents) if p.exists())
        found[name] = {"path": str(path), "free_gb": shutil.disk_usage(existing).free / 1e9}
    return found
