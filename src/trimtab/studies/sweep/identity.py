"""What tells one sweep from another: a folder belongs to one sweep only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.studies.sweep.grid import POINT, ConfigTree, Settings, Sweep


@dataclass(frozen=True, slots=True)
class SweepIdentity:
    """The keys of the axes, what the points share, and by name what each written-out point sets beside the axes.

    Values of an axis and seeds are no part of it: they may be added to a sweep.
    """

    keys: tuple[str, ...]
    base: ConfigTree
    points: Mapping[str, Settings]

    @classmethod
    def of(cls, sweep: Sweep) -> SweepIdentity:
        keys = tuple(axis.key for axis in sweep.axes)
        points = {
            str(point.values[POINT]): {key: value for key, value in point.settings.items() if key not in keys}
            for point in sweep.points
            if POINT in point.values
        }
        return cls(keys, sweep.base, points)

    def to_json(self) -> dict[str, Any]:
        return {"keys": list(self.keys), "base": dict(self.base), "points": dict(self.points)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> SweepIdentity:
        return cls(tuple(tree["keys"]), tree["base"], tree.get("points", {}))  # the first sweeps had no points

    def differences(self, new: SweepIdentity) -> list[str]:
        """What is not the same in another sweep, for a message. Points that only one of them has may be added."""
        from trimtab.commands.run import differing_keys

        if self.keys != new.keys:
            names = [f"the keys {', '.join(self.keys)}"]
        else:
            names = differing_keys(dict(self.base), dict(new.base))
        return names + [
            f"point {name!r}" for name in new.points if self.points.get(name, new.points[name]) != new.points[name]
        ]
