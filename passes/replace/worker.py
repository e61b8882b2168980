"""`python -m planish.passes.replace.worker JOB RESULT`: one training job in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .block_training import Job, train


def main() -> None:
    source, result = Path(sys.argv[1]), Path(sys.argv[2])
    content = train(Job.from_bytes(source.read_bytes())).to_bytes()
    part = result.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, result)


if __name__ == "__main__":
    main()
