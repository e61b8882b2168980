"""Target names to tables: `arm64`, `arm64/cortex-a76`, `host`; plug-ins come from the group `planish.targets`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points

from ..errors import UsageError
from . import arm64, cuda, ethosu, hexagon, host
from .target import Target

__all__ = ["names", "resolve"]

_BUILTIN: Mapping[str, tuple[Callable[[str | None], Target], tuple[str, ...]]] = {
    "arm64": (arm64.resolve, tuple(arm64.CPUS)),
    cuda.KIND: (cuda.resolve, tuple(cuda.ARCHITECTURES)),
    **{name: (partial(cuda.resolve_board, name), ()) for name in cuda.BOARDS},
    "host": (host.resolve, ("native",)),
    "hexagon": (hexagon.resolve, hexagon.VERSIONS),
    **{name: (partial(ethosu.resolve, name), ()) for name in ethosu.ACCELERATORS},
}


@cache
def _families() -> dict[str, tuple[Callable[[str | None], Target], tuple[str, ...] | None]]:
    table: dict[str, tuple[Callable[[str | None], Target], tuple[str, ...] | None]] = dict(_BUILTIN)
    for point in entry_points(group="planish.targets"):
        if point.name in table:
            raise UsageError(
                f"two targets are both called {point.name!r}",
                where=point.value,
                hint="uninstall one of the plug-ins, or ask its author to rename the target",
            )
        table[point.name] = (partial(_load, point), None)
    return table


def _load(point: EntryPoint, cpu: str | None) -> Target:
    """The target of a plug-in, which is imported only when it is asked for."""
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the target {point.name!r} cannot be loaded: {error}",
            where=point.value,
            hint="install what it imports, or repair or uninstall the plug-in that registers it",
        ) from error
    target: Target = found(cpu)
    return target


def names() -> list[str]:
    """Every name `resolve` accepts, families first, then their members."""
    return [
        name
        for family, (_, cpus) in _families().items()
        for name in (family, *(f"{family}/{cpu}" for cpu in cpus or ()))
    ]


def resolve(name: str) -> Target:
    """The table of a target name; UsageError suggests near names."""
    family, _, cpu = name.partition("/")
    found = _families().get(family)
    if found is None or (cpu and found[1] is not None and cpu not in found[1]):
        near = difflib.get_close_matches(name, names(), 3)
        raise UsageError(
            f"there is no target called {name!r}",
            where="--target",
            hint=(f"did you mean {' or '.join(near)}? " if near else "") + f"known: {', '.join(names())}",
        )
    return found[0](cpu or None)
