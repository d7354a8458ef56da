"""The same experiment on emulated hosts: `mpcache-bench run FILE --lab`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netem.labs import seen_by_the_machine

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

EXPERIMENT = """
name: in-lab
model: random:tiny-llama
prompt: {random_tokens: true}
engines: [crypten]
policies: [mpcache]
networks: [{name: far, rate_mbit: 100, delay_ms: 5}]
seq_lens: [32]
new_tokens: 1
"""


def test_each_party_has_a_host_and_its_links_are_measured(tmp_path: Path) -> None:
    before = seen_by_the_machine()
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    command = [Path(sys.executable).with_name("mpcache-bench"), "run", tmp_path / "experiment.yaml", "--lab"]
    done = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["status"] == "ok"
    assert record["shaping"] in ("tc", "relay")
    assert len({record["parties"][role]["host"] for role in ("client", "server", "dealer")}) == 3
    for link in record["links"]:
        assert link["asked"]["rtt_ms"] == 10
        assert 8 <= link["measured_before"]["rtt_ms"] <= 12
    (dealt,) = (s for s in record["stages"] if (s["party"], s["stage"]) == ("client", "offline.triples"))
    # each request to the dealer takes a round trip, which is time blocked and not computing: 1.5 rounds, 3 messages
    assert dealt["blocked_seconds"] >= 0.010 * dealt["messages"] / 3
    assert seen_by_the_machine() == before
