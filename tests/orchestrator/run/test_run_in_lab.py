"""The same experiment on emulated hosts: `mpcache-bench run FILE --lab`."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.labs import seen_by_the_machine
from tests.helpers.waiting import PATIENCE_S

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
]

EXPERIMENT = """
name: in-lab
model: random:tiny-llama
prompt: {random_tokens: true}
engines: [crypten]
policies: [mpcache]
networks: [none, {name: far, rate_mbit: 100, delay_ms: 10}]
order: listed
seq_lens: [32]
new_tokens: 1
"""


def watched(folder: Path) -> dict[str, str]:
    """Metrics of each party and the live page, as seen from outside of the lab."""
    found = {}
    for path in folder.glob("*.json"):
        for group in json.loads(path.read_text()):
            labels = group["labels"]
            url = f"http://{group['targets'][0]}{labels.get('__metrics_path__', '/metrics')}"
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                found[labels["party"]] = answer.read().decode()
    return found


def test_each_party_has_a_host_its_links_are_measured_and_all_is_watched_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen_by_the_machine()
    monkeypatch.setenv("MPCACHE_BENCH_TARGETS", str(tmp_path / "targets"))
    (tmp_path / "targets").mkdir()
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    command: list[str | Path] = [
        Path(sys.executable).with_name("mpcache-bench"),
        "run",
        tmp_path / "experiment.yaml",
        "--lab",
    ]
    command += ["--out", tmp_path / "out", "--live", "--live-port", "0"]
    seen: dict[str, str] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        page = run.stdout.readline().removeprefix("live page: ").strip()
        while run.poll() is None and len(seen) < 5:
            seen |= watched(tmp_path / "targets")
            time.sleep(0.5)
        with urllib.request.urlopen(page, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own page
            assert b"mpcache-bench, live" in answer.read()
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert set(seen) == {"client", "server", "dealer", "referee", "driver"}
    assert all(f'mpcbench_resident_bytes{{party="{party}"}}' in text for party, text in seen.items())
    assert not any((tmp_path / "targets").iterdir())
    near, record = map(json.loads, (tmp_path / "out" / "records.jsonl").read_text().splitlines())
    assert (near["status"], record["status"]) == ("ok", "ok")
    assert near["shaping"] == "none"
    assert "setup" in {stage["phase"] for stage in near["stages"]}
    assert "setup" not in {stage["phase"] for stage in record["stages"]}  # new links, the same model
    assert record["shaping"] in ("tc", "relay")
    assert len({record["parties"][role]["host"] for role in ("client", "server", "dealer")}) == 3
    for link in record["links"]:
        assert link["asked"]["rtt_ms"] == 20
        assert 18 <= link["measured_before"]["rtt_ms"] <= 22
    (dealt,) = (s for s in record["stages"] if (s["party"], s["stage"]) == ("client", "offline.triples"))
    # each request to the dealer takes a round trip, which is time blocked and not computing: 1.5 rounds, 3 messages
    assert dealt["blocked_seconds"] >= 0.020 * dealt["messages"] / 3
    assert seen_by_the_machine() == before
