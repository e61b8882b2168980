"""Which cost back end a target has: time here, time on boards behind an RPC tracker, or a model of the instructions."""

from __future__ import annotations

from ....errors import UsageError
from ....targets.target import Target
from .cost import Cost
from .cost_local import LocalTime

__all__ = ["cost_for"]


def cost_for(target: Target, tracker: str | None = None, key: str | None = None) -> Cost:
    """The cost back end for a target; UsageError when there is none, saying what would give one."""
    if (tracker is None) != (key is None):
        raise UsageError(
            "--rpc and --key belong together", where="--tune", hint="give --rpc HOST:PORT --key NAME-OF-THE-BOARDS"
        )
    if tracker is not None and key is not None:
        from .cost_rpc import RemoteTime

        return RemoteTime(target, tracker, key)
    if target.kind == "host":
        return LocalTime(target)
    from .cost_model import InstructionModel

    return InstructionModel(target)
