"""Time from `mpcache-bench submit` to the first private token, and to the results.

    ray start --head --num-cpus=4 --disable-usage-stats
    python benchmarks/submit.py examples/quickstart.yaml --address http://127.0.0.1:8265 --out runs/submitted

Reads the log that `submit` prints while the job runs, so the resolution is that of the run's progress: some seconds.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

MARKS = {
    "the job was accepted": re.compile(r"^job mpcache-bench-"),
    "the run began": re.compile(r": cell 1 of "),
    "parties loaded the model": re.compile(r"client loading"),
    "the first token was there": re.compile(r"client \S+ [1-9]\d* tokens|^\[1/"),
    "the first cell was through": re.compile(r"^\[1/"),
    "the results were here": re.compile(r" files fetched to "),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--address", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    command = [Path(sys.executable).with_name("mpcache-bench"), "submit", given.file, "--address", given.address]
    start, left = time.monotonic(), dict(MARKS)
    with subprocess.Popen(
        [*command, "--out", given.out], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        for line in run.stdout or ():
            for name in [name for name, mark in left.items() if mark.search(line)]:
                print(f"{time.monotonic() - start:7.1f} s until {name}", flush=True)
                del left[name]
    for name in left:
        print(f"      not seen: {name}")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
