"""The lock file, the pins and the oldest versions speak of the same packages."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "supply"))


def pins() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {re.sub(r"[-_.]+", "-", n).lower(): v for n, v in re.findall(r"(?m)^([\w.-]+)==(\S+)", text)}


def test_every_locked_version_is_the_pinned_one_and_has_a_digest() -> None:
    import lock

    if not lock.LOCK.is_file():
        pytest.skip("no lock file was made for this version")
    locked = lock.read(lock.LOCK)
    assert len(locked) > 50
    assert all(digests for _, digests in locked.values())
    assert {name: pins().get(name) for name in locked} == {name: version for name, (version, _) in locked.items()}
    assert "torch" not in locked


def test_the_oldest_versions_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    told = [*project["dependencies"], *extras["hub"], *extras["judge"]]
    wanted = {found[1]: found[2] for line in told if (found := re.match(r"([\w.-]+)>=([\d.]+)", line))}
    text = (ROOT / "supply" / "floors.txt").read_text(encoding="utf-8")
    floors = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", text))
    assert floors.keys() == wanted.keys()
    for name, version in floors.items():
        assert version in {wanted[name], f"{wanted[name]}.*", f"{wanted[name]}.0.*"}, name
    assert set(wanted) <= set(pins()) | {"pyyaml"}
