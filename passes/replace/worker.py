"""`python -m planish.passes.replace.worker`: training jobs in a process of its own.

Reads lines `["JOB", "RESULT"]`, two paths, and answers to each with a line when the result is written.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .block_training import Job, train


def main() -> None:
    for line in sys.stdin:
        source, result = map(Path, json.loads(line))
        part = result.with_suffix(".part")
        part.write_bytes(train(Job.from_bytes(source.read_bytes())).to_bytes())
        os.replace(part, result)
        print("done", flush=True)


if __name__ == "__main__":
    main()
