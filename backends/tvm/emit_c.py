"""The C around the kernels: `model.h`, `model.c` (calls in order, static memory plan), `weights.S`, `main.c`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from . import emit_threads
from .c_templates import HEADER, MAIN, SOURCE, TILE_PERMISSION, TILE_RELEASE, WEIGHTS
from .control import Block, Close, Open, address, walk
from .memory import place
from .program import ALIGNMENT, Program, Tensor
from .statements import Statement, ordered

__all__ = ["emit", "loop_head", "main_program", "table", "weights_of"]


def emit(
    program: Program, name: str, names: tuple[list[str], list[str]], threads: int = 1, *, team: bool = False
) -> tuple[dict[str, bytes], int]:
    """The generated files (name -> contents) and the arena's bytes; `names`: the model's input and output names.

    The kernels are compiled already, for so many threads: `program.interfaces` says how they are called. team: callers
    have a team of threads, be it of one.
    """
    offsets, scratch, arena = place(program, threads)
    weights, blob = weights_of(program)
    pointers = {tensor.name: f"inputs[{i}]" for i, tensor in enumerate(program.inputs)}
    pointers |= {tensor.name: f"outputs[{i}]" for i, tensor in enumerate(program.outputs)}
    pointers |= {tensor: f"a + {offset}" for tensor, offset in offsets.items()}
    pointers |= {tensor: f"w + {offset}" for tensor, offset in weights.items()}
    words = {
        "name": name,
        "guard": name.upper(),
        "alignment": str(ALIGNMENT),
        "arena": str(arena),
        "inputs": str(len(program.inputs)),
        "outputs": str(len(program.outputs)),
    }
    tiles = "tiles" in program.requires
    words |= {
        "permission": TILE_PERMISSION + "\n" if tiles else "",
        "granted": "2 * tiles_refused()" if tiles else "0",
        "release": TILE_RELEASE if tiles else "",
    }
    words |= emit_threads.words(words, threads, team=team)
    tables = table(name, "inputs", program.inputs, names[0]) + table(name, "outputs", program.outputs, names[1])
    statements = list(_statements(program, pointers, scratch))
    calls = "\n".join(f"  {line}" for line in ordered(statements, team=team))
    source = SOURCE.substitute(words, prototypes=_prototypes(program), tables=tables, calls=calls)
    files = {
        f"{name}.h": HEADER.substitute(words),
        f"{name}.c": source,
        "weights.S": WEIGHTS.substitute(words),
        "main.c": main_program(program, words),
    }
    return {path: text.encode() for path, text in files.items()} | {f"{name}.weights": blob}, arena


def weights_of(program: Program) -> tuple[dict[str, int], bytes]:
    """Offsets of the constants that are read, and their bytes in one piece."""
    used = {program.storage(tensor) for call in program.calls for tensor in call.reads}
    offsets: dict[str, int] = {}
    blob = bytearray()
    for tensor, array in program.constants.items():
        if tensor in used:
            blob += bytes(-len(blob) % ALIGNMENT)
            offsets[tensor] = len(blob)
            blob += np.ascontiguousarray(array).tobytes()
    return offsets, bytes(blob)


def _prototypes(program: Program) -> str:
    lines = []
    for kernel in program.kernels:
        call = next(call for call in program.calls if call.kernel == kernel)
        interface = program.interfaces[kernel]
        types = ["const void *"] * len(call.reads) + ["void *"] * (len(call.writes) + len(interface.workspaces))
        for part in interface.parts:
            shared = [] if part.extent is None else ["int32_t", "int32_t"]
            lines.append(f"void {part.symbol}({', '.join(types + shared)});")
    return "\n".join(lines)


def loop_head(block: Block) -> str:
    """How a loop begins in C."""
    return f"for (int64_t {block.variable} = 0; {block.variable} < {block.trips}; ++{block.variable}) {{"


def _statements(program: Program, pointers: dict[str, str], scratch: list[tuple[int, ...]]) -> Iterator[Statement]:
    def pointer(tensor: str) -> str:
        return address(tensor, program.views, program.slices, pointers, "(uint8_t *)")

    for item in walk(program.blocks, len(program.calls)):
        if isinstance(item, Open):
            condition = item.block.condition
            negation = "" if item.block.taken else "!"
            text = f"if ({negation}*(const uint8_t *)({pointer(condition)})) {{" if condition else loop_head(item.block)
            yield Statement(text, None, item)
        elif isinstance(item, Close):
            yield Statement("}", None, item)
        else:
            yield from _calls(program, item, pointer, scratch[item])


def _calls(program: Program, step: int, pointer: Callable[[str], str], scratch: tuple[int, ...]) -> Iterator[Statement]:
    call = program.calls[step]
    arguments = [pointer(tensor) for tensor in (*call.reads, *call.writes)]
    if call.kernel is None:
        yield Statement(f"memcpy({arguments[1]}, {arguments[0]}, {program.tensors[call.writes[0]].bytes})", None)
        return
    interface = program.interfaces[call.kernel]
    for offset, stride in zip(scratch, interface.strides, strict=True):
        arguments.append(f"a + {offset} + {stride} * t" if stride else f"a + {offset}")
    for part in interface.parts:
        yield Statement(f"{part.symbol}({', '.join(arguments)})", part.extent)


def table(name: str, side: str, tensors: list[Tensor], names: list[str]) -> str:
    """The C table of the inputs or outputs (`side`), and the function that returns it."""
    shapes, rows = [], []
    for i, (tensor, label) in enumerate(zip(tensors, names, strict=True)):
        dims = ", ".join(map(str, tensor.shape)) or "0"
        shapes.append(f"static const int64_t {side}_shape_{i}[] = {{{dims}}};")
        text = label.replace("\\", "\\\\").replace('"', '\\"')
        rows.append(f'    {{"{text}", "{tensor.dtype}", {len(tensor.shape)}, {side}_shape_{i}, {tensor.bytes}}},')
    body = "\n".join([*shapes, f"static const {name}_tensor {side}_table[] = {{", *rows, "};"])
    access = f"  *count = {len(tensors)};\n  return {side}_table;\n"
    return f"{body}\nconst {name}_tensor *{name}_{side}(int *count) {{\n{access}}}\n\n"


def main_program(program: Program, words: dict[str, str]) -> str:
    """`main.c`: raw files in, raw files out."""
    lines = []
    for side, tensors in (("input", program.inputs), ("output", program.outputs)):
        for i, tensor in enumerate(tensors):
            lines.append(f"static _Alignas({ALIGNMENT}) unsigned char {side}_{i}[{max(tensor.bytes, 1)}];")
    lines.append(f"static _Alignas({ALIGNMENT}) unsigned char arena[{words['guard']}_ARENA_BYTES + 1];\n")
    return MAIN.substitute(
        words
        | {
            "buffers": "\n".join(lines),
            "inputs": ", ".join(f"input_{i}" for i in range(len(program.inputs))) or "0",
            "outputs": ", ".join(f"output_{i}" for i in range(len(program.outputs))) or "0",
        }
    )
