"""CrypTen's randomness: `stock` can be read from one message, `private` cannot, and nothing else differs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines import Randomness
from parties.engines.factory import make_dealer, make_engine
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.policies import MPCache
from parties.transport.mesh import Mesh
from tests.helpers.four import Four
from tests.helpers.tiny import LLAMA, folded, random_tokens
from tests.helpers.together import together
from tests.helpers.twister import continued

pytestmark = pytest.mark.slow

BOTH: tuple[Randomness, ...] = ("private", "stock")
VOCAB, HIDDEN, TOKEN = 330, 3, 7
SCALE = 2**16


def table() -> Tensor:
    """The server's secret."""
    return torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(4))


def embed(role: str, mesh: Mesh, meter: StageMeter, randomness: Randomness) -> Any:
    """Embeds a token; the client returns all that it holds and the first message that it receives."""
    if role == "dealer":
        return make_dealer("crypten", mesh, meter, randomness).serve(lambda: None, "full")
    engine: Any = make_engine("crypten", role, mesh, meter, randomness=randomness)
    run(engine.install({"embed": (VOCAB, HIDDEN)}, {"embed": table()} if role == "server" else None))
    received, exchange = [], mesh["server" if role == "client" else "client"].exchange_tensor

    def listen(tensor: Tensor) -> Tensor:
        received.append(exchange(tensor))
        return received[-1]

    kept, share = [], engine._share

    def keep(*values: Any, **options: Any) -> Any:
        kept.append(share(*values, **options))
        return kept[-1]

    engine.communicator.peer.exchange_tensor, engine._share = listen, keep
    row = engine.export(run(engine.embed([TOKEN] if role == "client" else None, 1)))
    engine.finish()
    own = {"table": engine._parameters["embed"].share, "hot": kept[0].share, "received": received[0]}
    return row, own if role == "client" else None


@pytest.fixture(scope="module", params=BOTH)
def embedded(request: pytest.FixtureRequest) -> tuple[Randomness, Any]:
    return request.param, together(embed, request.param)


def test_an_honest_but_curious_client_reads_the_servers_matrix_with_stock_randomness_only(
    embedded: tuple[Randomness, Any],
) -> None:
    randomness, results = embedded
    _, own = results["client"]
    hot = torch.zeros(1, VOCAB, dtype=torch.int64)
    hot[0, TOKEN] = 1
    # the server's shares of the client's row, and of its own matrix minus the matrix, which the client holds
    first, second = own["received"].split([VOCAB, VOCAB * HIDDEN])
    masks = (hot - own["hot"]).reshape(-1) - first
    predicted = continued(masks, VOCAB * HIDDEN)
    if randomness == "private":
        assert predicted is None
        return
    assert predicted is not None
    read = second.reshape(VOCAB, HIDDEN) + predicted.reshape(VOCAB, HIDDEN) + own["table"]
    assert (read - (table().double() * SCALE).long()).abs().max() <= 1  # CrypTen's encoding may round either way


def test_results_are_the_same(embedded: tuple[Randomness, Any]) -> None:
    _, results = embedded
    found = (results["client"][0] + results["server"][0]).double() / SCALE
    assert (found - table()[TOKEN].double()).abs().max() < 1 / SCALE


def shares_of_zero(role: str, mesh: Mesh, meter: StageMeter, randomness: Randomness) -> Any:
    if role == "dealer":
        return make_dealer("crypten", mesh, meter, randomness).serve(lambda: None, "full")
    engine: Any = make_engine("crypten", role, mesh, meter, randomness=randomness)
    from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor

    drawn = [kind.PRZS((40,)).share for kind in (ArithmeticSharedTensor, BinarySharedTensor) for _ in range(2)]
    seeds = {reading.stage: (reading.messages, reading.rounds) for reading in meter.snapshot()}["setup.seeds"]
    engine.finish()
    return drawn, seeds


def test_shares_of_zero_cancel_and_never_repeat_for_as_many_messages() -> None:
    results = {randomness: together(shares_of_zero, randomness) for randomness in BOTH}
    for parties in results.values():
        mine, theirs = (parties[role][0] for role in ("client", "server"))
        assert all(not (a + b).any() for a, b in zip(mine[:2], theirs[:2], strict=True))
        assert all(not (a ^ b).any() for a, b in zip(mine[2:], theirs[2:], strict=True))
        assert len(torch.cat(mine).unique()) == 160
    for role in ("client", "server"):
        assert results["private"][role][1] == results["stock"][role][1], "seeds take the same messages and rounds"


class Draws(TorchDispatchMode):
    """Records every operation of torch that draws a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in function.tags:
            self.operations.add(str(function))
        return function(*arguments, **(options or {}))


def watched(role: str, mesh: Mesh, meter: StageMeter, randomness: Randomness) -> Any:
    """Runs a prompt and a token, with eviction, selection and argmax; returns what torch drew."""
    spec, owns = replace(LLAMA, n_layers=2), role == "client"
    weights, prompt = folded(spec) if role == "server" else None, random_tokens(spec, 12, seed=5)
    policy = MPCache(static_keep=0.6, select=0.5, fine_size=2, coarse_size=4, share_from=1, share_layers=1)
    with Draws() as draws:
        if role == "dealer":
            make_dealer("crypten", mesh, meter, randomness).serve(lambda: None, "full")
            return draws.operations, ()
        engine = make_engine("crypten", role, mesh, meter, randomness=randomness)
        run(engine.install(folded_shapes(spec), weights))
        decoder, cache = Decoder(engine, spec, policy), Cache.empty(spec.n_layers)
        run(decoder.prefill(run(decoder.embed(prompt if owns else None, len(prompt), 0)), cache))
        logits = run(decoder.step(run(decoder.embed(prompt[-1:] if owns else None, 1, cache.position)), cache))
        engine.open_index(run(engine.argmax(logits)))
        engine.finish()
    readings = [r for r in meter.snapshot() if r.stage != "setup.seeds"]  # the one message whose size differs
    return draws.operations, {(r.stage, r.rounds, r.messages, r.sent_bytes, r.received_bytes) for r in readings}


def test_torch_draws_nothing_in_a_whole_token_and_traffic_is_that_of_stock() -> None:
    private, stock = (together(watched, randomness) for randomness in BOTH)
    assert all(not drawn for drawn, _ in private.values())
    assert all(drawn for drawn, _ in stock.values()), "a watch that misses these proves nothing"
    assert private["client"][1] == stock["client"][1]
    assert private["server"][1] == stock["server"][1]


def test_parties_that_stay_change_from_one_to_the_other_with_the_job() -> None:
    job = {
        "engine": "crypten", "policy": {"name": "full"}, "prompt": {"random_tokens": True}, "seq_len": 3,
        "model": "random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=16&vocab=64&positions=64",
        "new_tokens": 1,
    }  # fmt: skip
    with Four() as four:
        cells = [four.run(job | {"randomness": randomness}) for randomness in (*BOTH, "stock")]
    seeds = []
    for cell in cells:
        results = {role: result for role, (result, _) in cell.items()}
        assert results["referee"]["check"]["max_abs_logit_error"] < 0.5
        readings = [s["sent_bytes"] for s in results["client"]["stages"] if s["stage"] == "setup.seeds"]
        seeds.append(sum(readings))
    assert seeds[0] > seeds[1] > 0, "a keystream's seeds are longer"
    assert seeds[2] == 0, "parties that go on with the same draw no seed again"
