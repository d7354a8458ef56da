"""Passes that verify drafts, in real processes: the text of the plain engine, recorded or not, failures included."""

from collections.abc import Sequence
from typing import Any

import pytest

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.drafts import Drafting
from parties.decoding.program import run
from parties.decoding.steps import decode_token
from parties.decoding.workload import Workload
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.dealing.dry_run import DryRun
from parties.engines.fss.dealing.plan import Plan
from parties.engines.fss.engine import FssEngine
from parties.engines.fss.replay.recordings import Recordings
from parties.errors import Unsupported
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.options import RunOptions
from parties.policies import Full, MPCache, make
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.helpers.adversary import Adversary
from tests.helpers.tiny import SPECS, folded
from tests.helpers.together import together
from tests.parties.engines.fss.test_decoding import SCALE, fail_truncation, prefilled

STEPS, SPEC = 15, SPECS["llama"]
DRAFT = RunOptions.model_validate({"draft": {"lookup": 3}})
POLICIES: dict[str, Policy] = {
    "full": Full(),
    "mpcache": MPCache(static_keep=0.6, select=0.3, fine_size=8, coarse_size=16),
    "h2o": make("h2o", compression_interval=6),
}


def party(
    role: str, mesh: Mesh, meter: StageMeter, policy: Policy, parts: Any, right: Sequence[int], wrong: int, fail_at: int
) -> Any:
    """Decodes with drafts that are wrong at one place; the server interprets, the others replay."""
    if role == "dealer":
        made: list[Recordings] = []
        begin = DryRun.begin

        def dealing(self: DryRun, attempt: int) -> None:
            made.append(self._recordings)
            begin(self, attempt)

        setattr(DryRun, "begin", dealing)  # noqa: B010
        Dealer(mesh["client"], mesh["server"], meter).serve()
        return made[0].replayed
    if fail_at:
        fail_truncation(fail_at)
    engine = FssEngine(role, mesh, meter)
    run(engine.install(folded_shapes(SPEC), folded(SPEC) if role == "server" else None), engine.exchange)
    named = dict(parts[role])
    position = int(named.pop("position").item())
    cache = Cache.from_values(SPEC.n_layers, position, {name: engine.adopt(value) for name, value in named.items()})
    decoder = Decoder(engine, SPEC, policy)
    cache = engine.prepare(decoder.workload(cache, STEPS, DRAFT), cache)
    engine.replays = role == "client" and not fail_at
    drafter, text = (Adversary(right[1:], wrong), [0] * position + [right[0]]) if role == "client" else (None, [])
    drafting = Drafting(decoder, cache, STEPS, 3, "private", drafter, text)
    drafting.rehearse()
    passes = list(drafting.passes())
    engine.finish()
    logits = [engine.export(row) for found in passes for row in found.logits]
    tokens = [token for found in passes for token in found.tokens]
    return logits, tokens, drafting.accepted, engine.repeats, engine.replayed_segments


@pytest.mark.parametrize(
    ("policy", "wrong", "fail_at"), [("full", 1, 0), ("full", 2, 60), ("mpcache", 2, 0), ("h2o", 1, 0)]
)
def test_private_passes_decode_like_the_plain_engine_one_by_one(policy: str, wrong: int, fail_at: int) -> None:
    decoder, cache, parts, token = prefilled("llama", POLICIES[policy], seed=6)
    logits, tokens = [], [token]
    for _ in range(STEPS):
        row, chosen = run(decode_token(decoder, cache, tokens[-1:], "private"))
        logits.append(row)
        tokens += chosen or []
    results = together(party, POLICIES[policy], parts, tokens, wrong, fail_at)
    (mine, found, accepted, repeats, replayed), (theirs, hidden, seen, others, _) = results["client"], results["server"]
    assert found == tokens[1:]
    assert hidden == [None] * STEPS, "the server must not learn the tokens"
    assert seen == accepted, "how many are accepted is public"
    assert sum(accepted) + len(accepted) == STEPS
    assert max(accepted) == wrong
    for step, expected in enumerate(logits):
        assert ((mine[step] + theirs[step]).double() / SCALE - expected).abs().max() < 0.06
    assert replayed > SPEC.n_layers or fail_at
    assert replayed == results["dealer"] or repeats
    assert repeats == others
    assert bool(repeats) >= bool(fail_at)


def test_randomness_cannot_be_stored_ahead_of_drafts() -> None:
    options = RunOptions.model_validate({"draft": {"lookup": 3}, "offline": "stored"})
    with pytest.raises(Unsupported, match="cannot be stored ahead of them; take offline: streamed"):
        Plan.of(Workload(SPEC, "full", {}, STEPS, options, drafts=3), 1)
