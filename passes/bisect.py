"""Find the first rewrite of a pipeline that breaks the model, by running it with fewer and fewer rewrites permitted."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Limit", "first_bad"]


class Limit:
    """Permit the first `limit` rewrites of a pipeline and count all that ask; None permits every one."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.limit is None or self.asked <= self.limit


def first_bad(is_bad: Callable[[int], bool], total: int) -> int | None:
    """The smallest n in 1…total with `is_bad(n)`, given that badness lasts; None when `total` rewrites are good.

    0 when the model is bad before any rewrite. Takes about log2(total) + 2 runs.
    """
    if is_bad(0):
        return 0
    if not is_bad(total):
        return None
    good, bad = 0, total
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_bad(middle):
            bad = middle
        else:
            good = middle
    return bad
