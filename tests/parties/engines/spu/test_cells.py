"""Cells of the engine spu in real workers, and a host without SPU."""

from pathlib import Path
from typing import Any

import pytest

from parties.engines.spu import environment
from parties.engines.spu.engine import SpuEngine
from parties.errors import Unsupported
from parties.options import SpuOptions
from tests.helpers.four import Four
from tests.helpers.needs import needs


def job(policy: str, parameters: dict[str, Any], spu: dict[str, Any]) -> dict[str, Any]:
    return {
        "engine": "spu", "model": "random:tiny-llama", "policy": {"name": policy, **parameters},
        "prompt": {"random_tokens": True}, "seq_len": 40, "new_tokens": 1, "options": {"spu": spu},
    }  # fmt: skip


def online(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in result["stages"] if stage["phase"] == "online"}


@needs("spu")
@pytest.mark.slow
def test_three_parties_decode_through_mpcache_as_the_plain_engine_does() -> None:
    with Four() as four:
        outcomes = four.run(job("mpcache", {"fine_size": 4, "coarse_size": 8}, {"protocol": "aby3"}))
    results = {role: outcome for role, (outcome, _) in outcomes.items()}
    check = results["referee"]["check"]
    assert check["tokens_match"]
    assert 0 < check["max_abs_logit_error"] < 0.2
    sent, received = 0, 0
    for role in ("client", "server", "dealer"):
        stages = online(results[role])
        assert {"qkv", "similarity", "topk", "gather", "softmax", "argmax"} <= stages.keys()
        assert stages["softmax"]["rounds"] > 20
        assert "setup.compile" in {stage["stage"] for stage in results[role]["stages"]}, "no stage contains compiling"
        sent += sum(stage["sent_bytes"] for stage in stages.values())
        received += sum(stage["received_bytes"] for stage in stages.values())
    assert received == pytest.approx(sent, rel=0.05), "what is on its way is counted when it arrives"


def test_a_host_without_spu_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path))
    with pytest.raises(Unsupported, match=r"make spu.*MPCBENCH_SPU"):
        SpuEngine.require()


def test_each_protocol_states_whom_to_trust() -> None:
    aby3, semi2k, cheetah = (
        SpuEngine.of(SpuOptions(protocol=name)).trust_model for name in ("aby3", "semi2k", "cheetah")
    )
    assert "no two collude" in aby3
    assert semi2k.startswith("insecure against the client")
    assert "no dealer" in cheetah
