"""The plain engine gives the same results on a GPU and on the CPU."""

import pytest
import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.policies import Full, MPCache
from parties.policies.base import Policy
from tests.helpers.tiny import SPECS, folded, random_tokens


def decode(device: str, family: str, policy: Policy) -> torch.Tensor:
    spec, prompt = SPECS[family], random_tokens(SPECS[family], 90)
    engine = PlainEngine(StageMeter(), device=device)
    run(engine.install(folded_shapes(spec), folded(spec)))
    decoder, cache = Decoder(engine, spec, policy), Cache.empty(spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt[:-1], len(prompt) - 1, 0)), cache))
    logits = []
    for token in (prompt[-1], 3, 5):
        logits.append(run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache)))
    return torch.cat(logits).cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("policy", [Full(), MPCache(static_keep=0.8, select=0.3, fine_size=4, coarse_size=8)])
def test_gpu_and_cpu_agree(family: str, policy: Policy) -> None:
    assert (decode("cuda", family, policy) - decode("cpu", family, policy)).abs().max() < 1e-9
