"""Our reference for `time_to_accuracy.py`: `trimtab reference` with these words; what it says on stdout are the seconds
of the passes alone, the self-check included, as TRL's are measured."""

from __future__ import annotations

import sys
import time
from typing import Any

from worker import open_channel, tell


def main() -> None:
    channel = open_channel()
    from trimtab import cli
    from trimtab.engine import reference

    compute, took = reference.compute, {"reference": 0.0}

    def timed(*arguments: Any, **options: Any) -> None:
        start = time.perf_counter()
        compute(*arguments, **options)
        took["reference"] += time.perf_counter() - start

    reference.compute = timed
    cli.main(["reference", *sys.argv[1:]])
    tell(channel, took)


if __name__ == "__main__":
    main()
