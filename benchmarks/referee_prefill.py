"""CPU seconds of the referee's set-up of a cell: the model, then the prompt in the clear for one policy after another.

    python benchmarks/referee_prefill.py MODEL [--tokens 1024] [--policies full,h2o,mpcache] [--threads 2]

Cells of the engine `plain`, one after the other in one process, as a run has them: the first one also loads the model,
with a prompt of one token, and the first policy computes the attention of the prompt for the others. Besides the
prompt a cell decodes one token. CPU seconds are those of all threads; on a machine that does nothing else, wall
seconds are those of the set-up. The peak of resident memory is that of the process so far.
"""

import argparse
import time

import torch

from parties.metering.meter import StageMeter
from parties.metering.process import peak_resident_bytes
from parties.metering.progress import Progress
from parties.roles import referee as refereeing
from parties.roles.job import Job
from parties.roles.referee import Referee


def main() -> None:
    given = parse()
    torch.set_num_threads(given.threads)
    refereeing.usable_cpus = lambda: given.threads  # type: ignore[attr-defined, assignment]
    meter = StageMeter()
    referee = Referee({}, meter, Progress(meter))  # type: ignore[arg-type]  # a cell of `plain` asks nobody
    print(f"{given.model}, {given.tokens} tokens, {given.threads} threads\n")
    print("| cell | CPU s | wall s | peak GB |\n|---|---|---|---|")
    row("model", referee, job(given.model, 2, "full"))
    for policy in given.policies.split(","):
        row(policy, referee, job(given.model, given.tokens, policy))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU time of the referee's set-up of a cell.")
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--policies", default="full,h2o,mpcache", help="in this order")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def job(model: str, tokens: int, policy: str) -> Job:
    """A cell that decodes one token after a random prompt."""
    return Job.model_validate({
        "engine": "plain", "model": model, "policy": {"name": policy}, "prompt": {"random_tokens": True},
        "seq_len": tokens, "new_tokens": 1,
    })  # fmt: skip


def row(name: str, referee: Referee, wanted: Job) -> None:
    """Runs a cell and prints its times."""
    wall, cpu = time.perf_counter(), time.process_time()
    referee.run(wanted)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"| {name} | {cpu:.2f} | {wall:.2f} | {peak_resident_bytes() / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
