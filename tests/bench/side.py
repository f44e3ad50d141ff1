"""One side of a benchmark in a process of its own, which works when it is told to.

It has its own allocator and threads, and nothing of the other side's in its caches.
Started with a workload in JSON; then each line is [method, arguments], and is answered
by a line of numbers.
"""

from __future__ import annotations

import json
import sys

from naive import OneByOne
from ours import Lockstep
from workload import Workload

SIDES = {"naive": OneByOne, "ours": Lockstep}


def main() -> None:
    work = Workload(**json.loads(sys.argv[1]))
    side = SIDES[work.side](work)
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever else prints does not answer
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(getattr(side, method)(**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
