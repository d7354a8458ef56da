"""The `fss` engine against its targets: one decode step of SmolLM2-135M, counts exact, without running it.

    python benchmarks/targets.py [--tokens 1024] [--longer 2048]

Counts equal those of a run, framing included, from the dry run on shapes in `parties.engines.fss.cost.cost`. The
seconds are a model: compute at the speed of this machine, measured at the start, plus rounds x one-way delay plus bytes
/ rate, or the time of the dealer's link if that is longer.
"""

import argparse
from dataclasses import dataclass

from netem import preset
from parties.engines.fss.cost.cost import Prediction, predict
from parties.engines.fss.cost.speeds import Speeds, measure
from parties.models import load_spec
from parties.models.spec import ModelSpec
from parties.policies.base import Policy
from parties.policies.full import Full
from parties.policies.mpcache import MPCache

ONCE = ("embed", "lm_head", "argmax")  # stages of a token that belong to no layer
NETWORKS = ("lan", "wan")
PAPER = {"seconds": 1.8, "bytes": 3.4}  # MPCache (arXiv 2501.06807), abstract: at least, over its lengths
POLICIES: tuple[Policy, ...] = (Full(), MPCache())


@dataclass(frozen=True)
class Step:
    """One decode step."""

    spec: ModelSpec
    cost: Prediction

    @property
    def rounds(self) -> float:
        """Online."""
        return self.cost.decode.total("client", "online").rounds

    @property
    def sent(self) -> int:
        """Online bytes sent by the client; the server sends as many."""
        return self.cost.decode.total("client", "online").sent_bytes

    @property
    def dealt(self) -> tuple[int, int]:
        """Offline bytes to the client and to the server."""
        client, server = (self.cost.decode.total(role, "offline").received_bytes for role in ("client", "server"))
        return client, server

    @property
    def crossed(self) -> int:
        """All bytes, online both ways and offline."""
        return 2 * self.sent + sum(self.dealt)

    def stages(self) -> dict[str, tuple[float, int]]:
        """Rounds and bytes that the client sends, by stage."""
        counts = self.cost.decode.counts
        online = {stage: c for (role, stage), c in counts.items() if role == "client" and "." not in stage}
        return {stage: (c.rounds, c.sent_bytes) for stage, c in online.items()}

    def layer(self) -> tuple[float, float]:
        """Rounds and bytes of one layer, the mean over all; a layer has two norms, and one more follows the last."""
        n = self.spec.n_layers
        inside = {stage: amounts for stage, amounts in self.stages().items() if stage not in ONCE}
        shares = {stage: 2 / (2 * n + 1) if stage == "norm" else 1 / n for stage in inside}
        rounds, sent = (sum(shares[stage] * inside[stage][i] for stage in inside) for i in range(2))
        return rounds, sent

    def seconds(self, network: str, speeds: Speeds) -> float:
        """Seconds per step by the model in the docstring of this module."""
        profile = preset(network)
        near, dealer = profile.link("client", "server"), profile.link("dealer", "server")
        talking = self.rounds * near.delay_ms / 1e3 + 8e-6 * self.sent / (near.rate_mbit or float("inf"))
        dealing = 8e-6 * max(self.dealt) / (dealer.rate_mbit or float("inf"))
        return max(speeds.seconds(self.cost.work) + talking, dealing)


def step(spec: ModelSpec, policy: Policy, tokens: int) -> Step:
    return Step(spec, predict(spec, policy, seq_len=tokens, new_tokens=1))


def targets(full: Step, mpcache: Step) -> list[tuple[str, str, str]]:
    """Figure, target, count."""
    (full_rounds, full_bytes), (few_rounds, few_bytes) = full.layer(), mpcache.layer()
    return [
        ("rounds per layer, full", "40, stretch 25", f"{full_rounds:.2f}"),
        ("rounds per layer, mpcache", "40, stretch 25", f"{few_rounds:.2f}"),
        ("online MB per layer and party, full", "0.8", f"{full_bytes / 1e6:.3f}"),
        ("online MB per layer and party, mpcache", "0.3", f"{few_bytes / 1e6:.3f}"),
        ("offline MB per token, both parties, mpcache", "150", f"{sum(mpcache.dealt) / 1e6:.1f}"),
    ]


def breakdown(full: Step, mpcache: Step) -> None:
    print(f"\n{'stage':12}{'rounds, full':>14}{'kB sent':>10}{'rounds, mpcache':>18}{'kB sent':>10}")
    both = [each.stages() for each in (full, mpcache)]
    for stage in dict.fromkeys([*both[1], *both[0]]):
        (rounds, sent), (few, less) = (stages.get(stage, (0, 0)) for stages in both)
        print(f"{stage:12}{rounds:14g}{sent / 1e3:10.1f}{few:18g}{less / 1e3:10.1f}")
    for name, each in (("full", full), ("mpcache", mpcache)):
        client, server = each.dealt
        online = f"{each.rounds:g} rounds, {each.sent / 1e6:.2f} MB online each way"
        print(f"{name}: {online}; offline {client / 1e6:.1f} MB to the client, {server / 1e6:.1f} MB to the server")


def comparison(full: Step, mpcache: Step, tokens: int, speeds: Speeds) -> None:
    print(f"\n{tokens} prompt tokens, full over mpcache")
    online, everything = full.sent / mpcache.sent, full.crossed / mpcache.crossed
    print(f"  bytes: online {online:.2f}x, with offline {everything:.2f}x; paper at least {PAPER['bytes']}x")
    for network in NETWORKS:
        slow, fast = (each.seconds(network, speeds) for each in (full, mpcache))
        print(f"  {network}: {slow:.2f} s over {fast:.2f} s = {slow / fast:.2f}x; paper at least {PAPER['seconds']}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--longer", type=int, default=2048)
    wanted = parser.parse_args()
    spec, speeds = load_spec("smollm2-135m"), measure()
    full, mpcache = (step(spec, policy, wanted.tokens) for policy in POLICIES)
    print(f"SmolLM2-135M, {wanted.tokens} prompt tokens, one decode step\n")
    print(f"{'figure':44}{'at most':>16}{'exact':>12}")
    for figure, target, count in targets(full, mpcache):
        print(f"{figure:44}{target:>16}{count:>12}")
    breakdown(full, mpcache)
    comparison(full, mpcache, wanted.tokens, speeds)
    full, mpcache = (step(spec, policy, wanted.longer) for policy in POLICIES)
    comparison(full, mpcache, wanted.longer, speeds)
    print(f"\nspeeds: {speeds}")


if __name__ == "__main__":
    main()
