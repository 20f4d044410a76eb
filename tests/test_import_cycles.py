"""No module imports one that imports it, for its types either: the import contract holds layers, this the inside."""

from __future__ import annotations

import grimp
import networkx


def test_no_import_cycle() -> None:
    graph = grimp.build_graph("trimtab")
    edges = [(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)]
    assert list(networkx.simple_cycles(networkx.DiGraph(edges))) == []
