"""Channel positions that live and die together: union-find over integers, with the reasons that freeze some."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Atoms", "IntArray"]

IntArray = npt.NDArray[np.int64]


class Atoms:
    """Positions along tensor axes as integers; `unify` ties two, `find` gives the smallest one of each tied set."""

    def __init__(self) -> None:
        self._parent: IntArray = np.empty(1024, np.int64)
        self._count = 0
        self._frozen: list[tuple[IntArray, str]] = []
        self._inexact: list[tuple[IntArray, str]] = []

    def __len__(self) -> int:
        return self._count

    def fresh(self, *shape: int) -> IntArray:
        """New positions, tied to nothing."""
        n = int(np.prod(shape))
        while self._count + n > len(self._parent):
            self._parent = np.concatenate([self._parent, np.empty_like(self._parent)])
        ids = np.arange(self._count, self._count + n)
        self._parent[ids] = ids
        self._count += n
        return ids.reshape(shape)

    def find(self, atoms: IntArray) -> IntArray:
        """The representative of every position, same shape."""
        root = self._parent[atoms]
        while True:
            above = self._parent[root]
            if np.array_equal(above, root):
                break
            root = above
        self._parent[atoms] = root
        return root

    def unify(self, first: IntArray, second: IntArray) -> None:
        """Tie two arrays of positions element by element; they broadcast against each other."""
        if first is second:
            return
        one, two = np.broadcast_arrays(self.find(first), self.find(second))
        differ = one != two
        if not differ.any():
            return
        for a, b in np.unique(np.stack([one[differ], two[differ]], axis=1), axis=0):
            root_a, root_b = self._find_one(int(a)), self._find_one(int(b))
            if root_a != root_b:
                self._parent[max(root_a, root_b)] = min(root_a, root_b)

    def freeze(self, atoms: IntArray, reason: str) -> None:
        """Declare that these positions can never be removed."""
        self._frozen.append((atoms.ravel(), reason))

    def caution(self, atoms: IntArray, reason: str) -> None:
        """Declare that removing these positions is consistent, but not the same as zeroing them."""
        self._inexact.append((atoms.ravel(), reason))

    def frozen(self) -> dict[int, str]:
        """Representative to the first reason that freezes it."""
        return self._resolve(self._frozen)

    def inexact(self) -> dict[int, str]:
        """Representative to the first reason for which removing differs from zeroing."""
        return self._resolve(self._inexact)

    def _resolve(self, marks: list[tuple[IntArray, str]]) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for atoms, reason in marks:
            for root in np.unique(self.find(atoms)).tolist():
                reasons.setdefault(root, reason)
        return reasons

    def _find_one(self, atom: int) -> int:
        while (above := int(self._parent[atom])) != atom:
            self._parent[atom] = self._parent[above]
            atom = above
        return atom
