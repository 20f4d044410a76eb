"""What the report says of the precision that a run computed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from report_runs import WIN, a_config, a_run, make_report, page, write_json
from trimtab.runtime.folder import Folder


def run_with_noise(root: Path, *, precision: str, nats: float) -> Folder:
    """Reward gaps of the 40 held-out pairs: 30 of 2, 8 of −1, 2 of 0."""
    folder = a_run(root, {"oracle": [WIN] * 20})
    noise = {"precision": precision, "beta": 0.1, "nats": nats, "sentence": f"noise of {precision}: so much"}
    write_json(folder.versions, {"trimtab": "0", "python": "3", "packages": {}, "noise": noise})
    return folder


@pytest.mark.parametrize(("nats", "n_unsure"), [(4.0, 10), (1.0, 2)])
def test_pairs_within_the_noise_of_a_gap_are_counted(tmp_path: Path, nats: float, n_unsure: int) -> None:
    """Two standard deviations of a gap: 2 · √2 · .1 · 4 = 1.13, or .28."""
    run_with_noise(tmp_path, precision="mixed", nats=nats)
    config = a_config(tmp_path)
    training = make_report(config)["training"]
    assert training["noise"] == {"sentence": "noise of mixed: so much", "n_pairs": 40, "n_unsure": n_unsure}
    assert f"Noise of mixed: so much. Of 40 held-out pairs {n_unsure} end" in page(config, "md").replace("\\", "")


def test_nothing_is_said_of_float32_nor_of_runs_that_did_not_measure(tmp_path: Path) -> None:
    run_with_noise(tmp_path / "a", precision="float32", nats=1e-6)
    assert make_report(a_config(tmp_path / "a"))["training"]["noise"] is None
    a_run(tmp_path / "b", {"oracle": [WIN] * 20})
    assert make_report(a_config(tmp_path / "b"))["training"]["noise"] is None
