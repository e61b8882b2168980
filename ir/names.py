"""Names that are free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

__all__ = ["Names", "of_values"]


class Names:
    """Gives `stem`, `stem_1`, `stem_2`, …: the first that nothing has; what was given is taken from then on."""

    def __init__(self, taken: Iterable[str | None] = ()) -> None:
        self._taken = {name for name in taken if name}
        self._last: dict[str, int] = {}  # where the search for a stem ended: thousands of one stem stay linear

    def free(self, stem: str) -> str:
        """A name with this stem, taken now."""
        n = self._last.get(stem, 0)
        name = f"{stem}_{n}" if n else stem
        while name in self._taken:
            n += 1
            name = f"{stem}_{n}"
        self._last[stem] = n
        self._taken.add(name)
        return name


def of_values(graph: ir.Graph) -> Iterator[str | None]:
    """The names of all values of a graph and of the graphs inside its nodes."""
    for inner in (graph, *graph.subgraphs()):
        yield from (v.name for v in inner.inputs)
        yield from inner.initializers
        yield from (v.name for node in inner for v in node.outputs)
