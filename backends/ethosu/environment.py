"""What the `ethos-u` extra brings: the flatbuffer schema and interpreter of LiteRT, and Vela."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from ...errors import UsageError

__all__ = ["available", "interpreter", "schema", "vela"]


def available() -> bool:
    """Whether the extra is installed."""
    return all(find_spec(name) is not None for name in ("ai_edge_litert", "ethosu"))


def schema() -> Any:
    """The module with TFLite's flatbuffer classes."""
    return _need("ai_edge_litert.schema_py_generated", "ai-edge-litert")


def interpreter() -> Any:
    """The module with LiteRT's interpreter."""
    return _need("ai_edge_litert.interpreter", "ai-edge-litert")


def vela() -> str:
    """The module that runs as Vela's command line, once it is known to be there."""
    _need("ethosu.vela", "ethos-u-vela")
    return "ethosu.vela"


def _need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{package} is not installed ({error})",
            where="Ethos-U back end",
            hint="pip install 'planish[ethos-u]', or --no-compile for the ONNX file alone",
        ) from error
