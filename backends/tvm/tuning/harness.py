"""The measuring program: candidates compiled for a target, their arguments, and `measure.c` around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ....targets.target import Target
from .. import kernels, link
from .candidates import Candidate, subjects_of

__all__ = ["build"]

_ALIGNMENT = 64
_SOURCE = Path(__file__).with_name("measure.c")


def build(candidates: Sequence[Candidate], target: Target, directory: Path, *, form: str) -> None:
    """Make `directory`/measure, and its arguments in `directory`/data.

    form: `program` for this machine, `static` for a program that needs nothing, `library` for TVM's RPC server.
    """
    named = {f"c{i}": candidate.function for i, candidate in enumerate(candidates)}
    library, workspaces = kernels.build(named, "k_", target)
    library.write_to_file(str(directory / "candidates.o"), "o")
    data, header = _tables(candidates, [workspaces[f"c{i}"] for i in range(len(candidates))])
    (directory / "data").write_bytes(data)
    (directory / "candidates.h").write_text(header)
    (directory / "measure.c").write_bytes(_SOURCE.read_bytes())
    options = {
        "program": [],
        "static": ["-static"],
        "library": ["-shared", "-fPIC", "-DMEASURE_LIBRARY"],
    }[form]
    sources = ["measure.c", "candidates.o"]
    output = "measure.so" if form == "library" else "measure"
    link.link(target, directory, sources, output, options, static=form == "static")


def _tables(candidates: Sequence[Candidate], workspaces: Sequence[Sequence[int]]) -> tuple[bytes, str]:
    """The contents of all arguments, and C that says where they are and how to call the kernels."""
    subjects = subjects_of(candidates)
    places = {id(s): i for i, s in enumerate(subjects)}
    data = bytearray()
    rows, calls, entries = [], [], []
    for s in subjects:
        offsets = []
        for array in s.contents():
            data += bytes(-len(data) % _ALIGNMENT)
            offsets.append(len(data))
            data += np.ascontiguousarray(array).tobytes()
        sizes = [*s.reads, *s.writes]
        rows.append(f"    {{{len(s.reads)}, {len(s.writes)}, {_numbers(sizes)}, {_numbers(offsets)}}},")
    for i, (candidate, scratch) in enumerate(zip(candidates, workspaces, strict=True)):
        count = len(candidate.subject.reads) + len(candidate.subject.writes) + len(scratch)
        calls.append(f"void k_c{i}({', '.join(['void *'] * count)});")
        arguments = ", ".join(f"a[{k}]" for k in range(count))
        calls.append(f"static void call_{i}(void **a) {{ k_c{i}({arguments}); }}")
        place = places[id(candidate.subject)]
        entries.append(f"    {{call_{i}, {place}, {len(scratch)}, {_numbers(scratch)}}},")
    lines = [
        f"#define SUBJECTS {len(subjects)}",
        f"#define CANDIDATES {len(candidates)}",
        f"#define DATA_BYTES {len(data)}",
        *calls,
        "static const subject subjects[] = {",
        *rows,
        "};",
        "static const candidate candidates[] = {",
        *entries,
        "};",
    ]
    return bytes(data), "\n".join(lines) + "\n"


def _numbers(values: Sequence[int]) -> str:
    return f"(const int64_t[]){{{', '.join(map(str, values)) or '0'}}}"
