"""Recorded segments of a token in real processes: in step with parties that interpret, and repeated after failures."""

import gc
import sys
from itertools import pairwise
from statistics import median
from types import FrameType
from typing import Any

import pytest
import torch

from parties.decoding.cache import Cache
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.arithmetic.opening import Opener
from parties.engines.fss.dealing.dry_run import DryRun
from parties.engines.fss.engine import FssEngine
from parties.engines.fss.randomness import retries
from parties.engines.fss.recording.tracer import Tracer
from parties.engines.fss.replay import inputs
from parties.engines.fss.replay.recordings import Recordings
from parties.engines.fss.topk.selection import _permutations
from parties.metering.meter import StageMeter
from parties.options import DEFAULTS, RunOptions
from parties.policies import Full, MPCache
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.helpers.policy_cases import VARIANTS, case
from tests.helpers.tiny import SPECS
from tests.helpers.together import together
from tests.parties.engines.fss import test_decoding as decoding

STEPS = 9
COUNTS = RunOptions(softmax="dpf")
LATE = 300
"""A round in a layer that is replayed."""
SMALL_PIECE = 40_000
"""Bytes of a piece of the client's memory for randomness, so that most segments take several."""
WAITING = ("wait", "poll", "recv_into")
TRAINED = {name for name in VARIANTS if case(name).trained}  # their steps are those of `snapkv`
POLICIES: dict[str, Policy] = {
    "full": Full(),
    "mpcache": MPCache(static_keep=0.6, select=0.3, fine_size=4, coarse_size=8),
    "mpcache ahead": MPCache(static_keep=0.6, select=0.3, fine_size=4, coarse_size=8, ahead=True),
    "mpcache rows": MPCache(static_keep=0.6, select=0.3, fine_size=4, coarse_size=8, ahead=True, use="rows"),
    **{
        name: case(name)
        for name in VARIANTS
        if name not in ("full", "mpcache", "mpcache ahead") and name not in TRAINED
    },
}
SEEDS = {
    ("gpt2", "tova by step"): 33, ("gpt2", "random"): 20, ("gpt2", "infllm"): 20, ("gpt2", "infllm ahead"): 21,
    ("llama", "infllm"): 28, ("llama", "mpcache+"): 25, ("llama", "mpcache by key head"): 20,
    ("llama", "mpcache by rows"): 24,
}  # fmt: skip
"""Prompts without a near tie, by the plain engine with noise as large as the private one's; the others take seed 6."""
QUICK = [
    ("llama", "full"), ("llama", "mpcache"), ("llama", "mpcache ahead"), ("gpt2", "full"), ("llama", "tova by step"),
    ("llama", "mpcache rows"),
    ("gpt2", "h2o"),
]  # fmt: skip


def party(
    role: str, mesh: Mesh, meter: StageMeter, who: tuple[str, ...], fail_at: int, family: str, policy: Policy,
    parts: Any, token: int, on_gpu: tuple[str, ...] = (), options: RunOptions = DEFAULTS,
) -> Any:  # fmt: skip
    """Decodes; the parties in `who` replay. At both parties a segment fails before it opens round `fail_at`, if any."""
    vars(decoding)["STEPS"] = STEPS
    if role == "client" and "server" not in who:
        vars(inputs)["PIECE_BYTES"] = SMALL_PIECE
        if role in on_gpu:
            from parties.engines.fss.replay import device_inputs

            vars(device_inputs)["PIECE_BYTES"] = SMALL_PIECE
    retries.SIGNIFICANCE = 0.0  # the party accepts the failure as chance
    made: list[Recordings] = []
    engines: list[FssEngine] = []
    begin, prepare, swap = DryRun.begin, FssEngine.prepare, Opener.swap_fixed
    rounds = 0

    def dealing(self: DryRun, attempt: int) -> None:
        self._replays = role in who
        made.append(self._recordings)
        begin(self, attempt)

    def prepared(self: FssEngine, workload: Any, cache: Cache) -> Cache:
        ready = prepare(self, workload, cache)
        self.replays = role in who
        made.append(self.recordings)
        engines.append(self)
        return ready

    def count() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == fail_at:
            raise TruncationFailure("a truncation that a test chose")

    def swapped(self: Opener, *given: Any) -> None:
        count()
        swap(self, *given)

    for kind, name, function in (
        (DryRun, "begin", dealing), (FssEngine, "prepare", prepared),
        (Opener, "swap_fixed", swapped),
    ):  # fmt: skip
        setattr(kind, name, function)
    device = "cuda" if role in on_gpu else "cpu"
    result = decoding.decode(role, mesh, meter, family, policy, parts.get(role, {}), token, device, options)
    (recordings,) = made
    for engine in engines:
        segments = engine.replayed_segments + sum(engine.interpreted_segments.values())
        assert segments >= STEPS * (SPECS[family].n_layers + 2)
        assert engine.replayed_segments == recordings.replayed
        assert engine.repeats >= (fail_at > 0)
    repeats = sum(engine.repeats for engine in engines)
    return (*(result or ()), (recordings.replayed, dict(recordings.interpreted), recordings.refused, repeats))


def decoded(
    who: tuple[str, ...], family: str, policy: Policy, fail_at: int = 0, on_gpu: tuple[str, ...] = (), seed: int = 6,
    options: RunOptions = DEFAULTS,
) -> dict[str, Any]:  # fmt: skip
    """Checks logits and tokens; returns, for each party, what was replayed, interpreted, refused and repeated."""
    decoder, cache, parts, token = decoding.prefilled(family, policy, seed)
    results = together(party, who, fail_at, family, policy, parts, token, on_gpu, options)
    vars(decoding)["STEPS"] = STEPS
    try:
        decoding.check({role: result[:4] for role, result in results.items()}, decoder, cache, token)
    finally:
        vars(decoding)["STEPS"] = 3
    return {role: result[-1] for role, result in results.items()}


def in_step(family: str, policy: str, options: RunOptions = DEFAULTS) -> None:
    seed = SEEDS.get((family, policy), 6)
    counts = decoded(("client", "dealer"), family, POLICIES[policy], seed=seed, options=options)
    replayed, interpreted, refused, repeats = counts["client"]
    if not repeats:  # else the dealer deals again what it dealt ahead of a truncation that failed by chance
        assert replayed == counts["dealer"][0]
    assert replayed >= 2 * (STEPS - 1), "the embedding and the choice of all tokens but the first"
    if policy == "full" and not repeats:
        assert interpreted == {}, "all was recorded before the first token"
    assert not refused
    assert counts["server"][0] == 0


@pytest.mark.parametrize(("family", "policy"), QUICK)
def test_recorded_parties_are_in_step_with_interpreted_ones(family: str, policy: str) -> None:
    """The server interprets: every number that the client opens, and every key and mask of the dealer's, are alike."""
    in_step(family, policy)


@pytest.mark.parametrize("policy", ["full", "mpcache"])
def test_a_softmax_by_counts_is_recorded_as_one_by_tables_is(policy: str) -> None:
    in_step("llama", policy, COUNTS)


@pytest.mark.slow
@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("policy", POLICIES)
def test_recorded_parties_are_in_step_with_interpreted_ones_in_every_policy(family: str, policy: str) -> None:
    if (family, policy) not in QUICK:
        in_step(family, policy)


@pytest.mark.parametrize("who", [("client", "server", "dealer"), ("client", "dealer")])
def test_a_recorded_segment_is_replayed_again_after_a_truncation_failure(who: tuple[str, ...]) -> None:
    """Also where the other party interprets it: it has noted constants of the round before which the segment failed."""
    counts = decoded(who, "llama", POLICIES["full"], fail_at=LATE)
    assert all(counts[role][0] > 20 for role in who)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("who", "on_gpu"),
    [(("client",), ("client",)), (("client", "server"), ("client",)), (("client", "server"), ("client", "server"))],
)
@pytest.mark.parametrize(
    ("family", "policy", "options"),
    [
        ("llama", "full", DEFAULTS),
        ("llama", "mpcache", DEFAULTS),
        ("llama", "mpcache ahead", DEFAULTS),
        ("gpt2", "full", DEFAULTS),
        ("llama", "full", COUNTS),
    ],
)
def test_graphs_are_in_step_with_interpreted_and_recorded_parties(
    who: tuple[str, ...], on_gpu: tuple[str, ...], family: str, policy: str, options: RunOptions
) -> None:
    counts = decoded(who, family, POLICIES[policy], on_gpu=on_gpu, options=options)
    for role in who:
        replayed, interpreted, refused, _ = counts[role]
        assert not refused, refused
        assert replayed > sum(interpreted.values())


def profiled(role: str, mesh: Mesh, meter: StageMeter, *arguments: Any) -> Any:
    """Counts the client's launches in replays of what was replayed before: those of graphs, and others.

    Copies of what was dealt, which are the driver's, are neither.
    """
    launched: list[tuple[int, int]] = []
    attempt = FssEngine._attempt

    def watched(self: FssEngine, *given: Any) -> Any:
        replayed, known = self.recordings.replayed, len(self.recordings._known)
        layer = given[2][0] if isinstance(given[2], tuple) else 0
        if len(launched) > 3 or not known or layer == 0:  # what enters the first layer may be copied
            return attempt(self, *given)
        kinds = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as profile:
            result = attempt(self, *given)
        names = [event.name for event in profile.events()]
        if self.recordings.replayed > replayed and len(self.recordings._known) == known:
            graphs = sum(name == "cudaGraphLaunch" for name in names)
            others = sum(name.startswith(("cudaLaunch", "cuLaunch", "cudaMemcpy")) for name in names)
            launched.append((graphs, others))
        return result

    if role == "client":
        setattr(FssEngine, "_attempt", watched)  # noqa: B010
    result = party(role, mesh, meter, *arguments)
    return (*result, dict(meter.numbers()), launched)


@pytest.mark.gpu
def test_a_replay_launches_graphs_and_nothing_else() -> None:
    _, _, parts, token = decoding.prefilled("llama", POLICIES["full"])
    results = together(profiled, ("client",), 0, "llama", POLICIES["full"], parts, token, ("client",))
    *_, counted, launched = results["client"]
    assert launched
    assert counted["mpcbench_gpu_graph_replays_total"] > counted["mpcbench_gpu_graph_captures_total"] > 0
    assert all(graphs > 5 and others == 0 for graphs, others in launched), launched


@pytest.mark.gpu
def test_graphs_are_replayed_again_after_a_truncation_failure() -> None:
    who = ("client", "server")
    counts = decoded(who, "llama", POLICIES["full"], fail_at=LATE, on_gpu=who)
    assert counts["client"][0] == counts["server"][0] > 20


def compiling(role: str, mesh: Mesh, meter: StageMeter, *arguments: Any) -> Any:
    """Lists the kernels that Triton compiles or loads after the set-up."""
    from triton import knobs

    compiled: list[str] = []
    prepare = FssEngine.prepare

    def prepared(self: FssEngine, *given: Any) -> Any:
        knobs.runtime.jit_cache_hook = lambda **kernel: compiled.append(kernel["repr"])
        return prepare(self, *given)

    setattr(FssEngine, "prepare", prepared)  # noqa: B010
    return (*party(role, mesh, meter, *arguments), compiled)


@pytest.mark.gpu
@pytest.mark.parametrize(("family", "policy"), [("llama", "full"), ("llama", "mpcache ahead"), ("gpt2", "mpcache")])
def test_no_kernel_is_compiled_after_the_set_up(family: str, policy: str) -> None:
    _, _, parts, token = decoding.prefilled(family, POLICIES[policy])
    who = ("client", "server")
    results = together(compiling, who, 0, family, POLICIES[policy], parts, token, who)
    assert {role: results[role][-1] for role in who} == {role: [] for role in who}


def test_a_replay_draws_new_permutations() -> None:
    with Tracer() as tracer:
        made = _permutations(2, 16)
    recording = tracer.finish([made])
    drawn = [made.clone()]
    for _ in range(2):
        for tape in recording.tapes:
            tape.run()
        drawn.append(recording.tensors[0].clone())
    assert all((p.sum(1) == 1).all() and (p.sum(2) == 1).all() for p in drawn)
    assert not any(torch.equal(one, other) for one, other in pairwise(drawn))


def counting(role: str, mesh: Mesh, meter: StageMeter, *arguments: Any) -> Any:
    """Counts calls in the client's replays of layers, Python's and with C's, without those that wait for the peer."""
    counts: list[tuple[int, int]] = []
    run_segment = FssEngine.run_segment

    def counted(self: FssEngine, *given: Any) -> Any:
        before, python, compiled = self.recordings.replayed, 0, 0

        def count(frame: FrameType, event: str, function: Any) -> None:
            nonlocal python, compiled
            name = frame.f_code.co_name if event == "call" else getattr(function, "__name__", "")
            if frame.f_code.co_filename != __file__ and name not in WAITING:
                python += event == "call"
                compiled += event == "c_call"

        known = len(self.recordings._known)
        sys.setprofile(count)
        try:
            return run_segment(self, *given)
        finally:
            sys.setprofile(None)
            replayed = self.recordings.replayed > before and len(self.recordings._known) == known
            if replayed and isinstance(given[2], tuple):
                counts.append((python, python + compiled))

    if role == "client":
        gc.disable()  # CPython 3.11.2 can crash in a collection while frames are profiled
        setattr(FssEngine, "run_segment", counted)  # noqa: B010
    result = party(role, mesh, meter, *arguments)
    return (*result, counts)


def test_a_layer_is_replayed_with_few_calls_of_python() -> None:
    """Half of them are those of 17 rounds; some layers also wait for the dealer."""
    _, _, parts, token = decoding.prefilled("llama", POLICIES["full"])
    who = ("client", "server", "dealer")
    results = together(counting, who, 0, "llama", POLICIES["full"], parts, token)
    counts = results["client"][-1]
    assert counts
    assert median(python for python, _ in counts) < 260, counts
    assert median(both for _, both in counts) < 560, counts
