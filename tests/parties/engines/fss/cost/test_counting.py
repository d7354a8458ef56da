"""The dealer's traffic, counted on shapes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from parties.engines.fss.cost.cost import predict
from parties.engines.fss.cost.counting import CountingSource
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.metering.meter import StageMeter
from parties.models.spec import ModelSpec
from parties.options import RunOptions
from parties.policies import POLICIES, Full, MPCache
from parties.policies.base import Policy
from tests.helpers.tiny import SPECS
from tests.parties.engines.fss.cost.test_shapes import policy_of


def test_its_randomness_costs_what_the_dealers_costs() -> None:
    frames: dict[str, list[int]] = {"client": [], "server": []}
    source = CountingSource(StageMeter(), frames["client"].append, frames["server"].append)
    secrets: list[str] = []

    def secret() -> Any:
        secrets.append("asked for")

    source.begin(1)
    source.mask((1000,))
    source.deal((100, 3), secret)
    source.deal_bits((17,), secret)
    source.broadcast((5, 16), secret)
    source.flush()
    assert frames == {"client": [8 + 5 * 16], "server": [8 + 8 * 300 + 8 + 5 * 16]}
    assert not secrets
    assert source.drawn.size == 8 * 1300 + 8
    assert isinstance(source, DealerSource)


def test_long_streams_are_cut_into_frames() -> None:
    frames: list[int] = []
    source = CountingSource(StageMeter(), frames.append, frames.append)
    source.begin(1)
    source.deal((2**17 + 1,), lambda: torch.empty(0))
    source.flush()
    assert frames == [8 + 2**20, 8 + 8]


def test_a_model_that_fits_no_machine_is_predicted() -> None:
    spec = ModelSpec(
        family="llama", n_layers=1, hidden=2**15, n_heads=256, n_kv_heads=256, head_dim=128, intermediate=2**20,
        vocab=2**20, max_positions=2**20, norm_eps=1e-5, activation="silu", tied=True,
    )  # fmt: skip
    prediction = predict(spec, Full(), seq_len=2**12, new_tokens=1)
    assert prediction.work.weight_bytes > 2**40
    assert prediction.decode.total("client", "online").sent_bytes > 256 * 2**12 * 8


def test_zeros_of_the_randomness_take_no_memory() -> None:
    source = CountingSource(StageMeter(), lambda _: None, lambda _: None)
    octets, _ = source.deal_bytes((2**20, 2**20), lambda: torch.empty(0, dtype=torch.uint8))
    assert octets.nbytes == 2**40
    assert octets.is_meta


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_predicted_with_the_prompt_inside(name: str, tmp_path: Path) -> None:
    spec = SPECS["llama"]
    prediction = predict(
        spec, policy_of(name, spec, tmp_path), seq_len=20, new_tokens=2, options=RunOptions(prefill="mpc")
    )
    assert prediction.prefill is not None
    for traffic in (prediction.prefill, prediction.decode):
        client, server = (traffic.total(role, "online") for role in ("client", "server"))
        assert client.sent_bytes == server.received_bytes > 0
        assert client.received_bytes == server.sent_bytes > 0
        received = sum(traffic.total(role, "offline").received_bytes for role in ("client", "server"))
        assert received == traffic.total("dealer", "offline").sent_bytes > 0


SMOLLM2 = ModelSpec(
    family="llama", n_layers=30, hidden=576, n_heads=9, n_kv_heads=3, head_dim=64, intermediate=1536, vocab=49_152,
    max_positions=8192, norm_eps=1e-5, activation="silu", tied=True,
)  # fmt: skip


@pytest.mark.parametrize(("policy", "most_bytes"), [(Full(), 0.8e6), (MPCache(), 0.3e6)])
def test_a_decode_step_of_smollm2_keeps_its_targets(policy: Policy, most_bytes: float) -> None:
    prediction = predict(SMOLLM2, policy, seq_len=1024, new_tokens=1)
    client = {stage: counts for (role, stage), counts in prediction.decode.counts.items() if role == "client"}
    layers = [client[stage] for stage in client if "." not in stage and stage not in ("embed", "lm_head", "argmax")]
    assert sum(counts.rounds for counts in layers) / 30 <= 40
    assert sum(counts.sent_bytes for counts in layers) / 30 <= most_bytes
    dealt = prediction.decode.total("dealer", "offline").sent_bytes
    assert dealt <= 150e6
