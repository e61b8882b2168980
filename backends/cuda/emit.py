"""The generated files around the kernels: C that launches them in order, with every byte of device memory placed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..tvm.control import Close, Open, address, walk
from ..tvm.emit_c import loop_head, main_program, table, weights_of
from ..tvm.memory import place
from ..tvm.program import ALIGNMENT, Program, Tensor
from .c_templates import BLOBS, HEADER, SOURCE
from .kernels import Launch, Source

__all__ = ["emit"]


def emit(
    program: Program, source: Source, name: str, names: tuple[list[str], list[str]], target: str, image: str
) -> tuple[dict[str, bytes], int]:
    """The generated files (name -> contents) and the bytes of working memory on the device.

    names: the model's input and output names; image: the suffix of the file with the compiled kernels.
    """
    offsets, scratch, arena = place(program)
    weights, blob = weights_of(program)
    addresses = {tensor.name: f"in[{i}]" for i, tensor in enumerate(program.inputs)}
    addresses |= {tensor.name: f"out[{i}]" for i, tensor in enumerate(program.outputs)}
    addresses |= {tensor: f"a + {offset}" for tensor, offset in offsets.items()}
    addresses |= {tensor: f"w + {offset}" for tensor, offset in weights.items()}
    launches = [launch for group in source.launches.values() for launch in group]
    numbers = {launch.symbol: number for number, launch in enumerate(launches)}
    words = {
        "name": name,
        "guard": name.upper(),
        "target": target,
        "image": image,
        "alignment": str(ALIGNMENT),
        "arena": "0",
        "device_bytes": str(arena),
        "weight_bytes": str(len(blob)),
        "staging": str(sum(map(_room, (*program.inputs, *program.outputs)))),
        "inputs": str(len(program.inputs)),
        "outputs": str(len(program.outputs)),
        "functions": str(len(launches)),
        "most": str(max((len(launch.arguments) for launch in launches), default=0)),
    }
    words["run"] = f"  if ({name}_run((const void *const *)inputs, outputs, arena)) return 1;"
    text = SOURCE.substitute(
        words,
        tables=table(name, "inputs", program.inputs, names[0]) + table(name, "outputs", program.outputs, names[1]),
        kernels="\n".join(f'    "{symbol}",' for symbol in numbers),
        calls="\n".join(f"  {line}" for line in _calls(program, source, addresses, scratch, numbers)),
    )
    files = {
        f"{name}.h": HEADER.substitute(words),
        f"{name}.c": text,
        "blobs.S": BLOBS.substitute(words),
        "main.c": main_program(program, words),
        f"{name}.cu": source.text,
    }
    return {path: contents.encode() for path, contents in files.items()} | {f"{name}.weights": blob}, arena


def _room(tensor: Tensor) -> int:
    """Bytes of a tensor among others, each at a multiple of the alignment."""
    return (tensor.bytes // ALIGNMENT + 1) * ALIGNMENT


def _calls(
    program: Program,
    source: Source,
    addresses: dict[str, str],
    scratch: Sequence[tuple[int, ...]],
    numbers: dict[str, int],
) -> Iterator[str]:
    """Launches and copies in order; loops run on the host, which only launches."""
    for item in walk(program.blocks, len(program.calls)):
        if isinstance(item, Open):
            assert item.block.condition is None, "a condition lies on the device"
            yield loop_head(item.block)
            continue
        if isinstance(item, Close):
            yield "}"
            continue
        call = program.calls[item]
        tensors = (*call.reads, *call.writes)
        arguments = [address(t, program.views, program.slices, addresses, "(address)") for t in tensors]
        arguments += [f"a + {offset}" for offset in scratch[item]]
        if call.kernel is None:
            yield f"COPY({arguments[1]}, {arguments[0]}, {program.tensors[call.writes[0]].bytes});"
            continue
        for launch in source.launches[call.kernel]:
            yield _launch(launch, numbers[launch.symbol], arguments)


def _launch(launch: Launch, number: int, arguments: Sequence[str]) -> str:
    sizes = ", ".join(map(str, launch.sizes))
    given = ", ".join(arguments[position] for position in launch.arguments)
    return f"LAUNCH({number}, SIZES({sizes}), {given});"
