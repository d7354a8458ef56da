"""Networks with `+tls`: the same links and counts, other cells, and parties that refuse peers without a certificate."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.networks import ResolvedNetwork, parse_network
from orchestrator.run.actors import PartyActor
from orchestrator.run.placement import ROLES
from parties.transport.tls import Authority
from tests.helpers import samples
from tests.helpers.fake_party import FakeParty
from tests.helpers.sweeping import sweep_in


def network(given: object) -> ResolvedNetwork:
    parsed = parse_network(given)
    assert isinstance(parsed, ResolvedNetwork)
    return parsed


def test_tls_changes_the_cell_and_not_its_links() -> None:
    plain, secured = network("wan"), network("wan+tls")
    assert (secured.name, secured.tls, secured.pairs) == ("wan+tls", True, plain.pairs)
    assert samples.cell(networks=["wan"]).id != samples.cell(networks=["wan+tls"]).id
    assert network("none+tls").profile().shaped is False
    own = network({"name": "mine", "rate_mbit": 100, "delay_ms": 5, "tls": True})
    assert own.tls
    assert own.profile() == network({"name": "mine", "rate_mbit": 100, "delay_ms": 5}).profile()


def test_cells_without_tls_keep_the_ids_of_earlier_versions() -> None:
    assert network({"name": "mine", "rate_mbit": 100, "delay_ms": 5, "tls": False}).model_dump().keys() == {
        "name",
        "pairs",
    }


@pytest.mark.parametrize("name", ["none", "none+tls", "lan", "wan+tls"])
def test_a_network_is_read_as_it_was_written(name: str) -> None:
    assert network(network(name).model_dump(mode="json")) == network(name)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("lam+tls", r"write lan\+tls"),
        ({"name": "mine", "delay_ms": 5, "tls": 1}, "true or false"),
        ({"name": "lan", "tls": True}, "a name that no preset has"),
        ({"name": "lan+tls", "delay_ms": 5, "tls": True}, "a name that no preset has"),
    ],
)
def test_a_bad_network_is_refused_with_the_reason(given: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        samples.experiment(networks=[given])


def joined(stranger: str = "") -> dict[str, dict[str, Any]]:
    """The results of actors that connect with certificates of one run, except for a stranger."""
    actors = {role: PartyActor(role, 4, f"{FakeParty.__module__}:FakeParty") for role in ROLES}
    authority = Authority()
    for role, actor in actors.items():
        signer = Authority() if role == stranger else authority
        signed = signer.sign(role, actor.request_certificate()["request"])
        assert actor.take_certificate(signed, signer.certificate) == {}
    addresses = {role: actor.open("127.0.0.1", 0, "session", 5.0)["address"] for role, actor in actors.items()}
    peers = {role: {peer: at for peer, at in addresses.items() if peer != role} for role in ROLES}
    with ThreadPoolExecutor(len(ROLES)) as pool:
        results = dict(zip(ROLES, pool.map(lambda role: actors[role].connect(peers[role]), ROLES), strict=True))
    for actor in actors.values():
        assert actor.close() == {}
    return results


def test_parties_of_one_run_connect() -> None:
    assert joined() == {role: {} for role in ROLES}


def test_a_party_with_another_runs_certificate_is_refused() -> None:
    results = joined(stranger="dealer")
    assert all("error" in answer for answer in results.values())
    assert results["dealer"]["error"]["status"] == "config_error"
    assert "no TLS with" in results["dealer"]["error"]["message"]


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cell_sends_and_waits_for_the_same_with_tls(tmp_path: Path) -> None:
    experiment = Experiment.model_validate(
        {
            "name": "tls",
            "model": "random:tiny-llama",
            "prompt": {"random_tokens": True},
            "engines": ["fss"],
            "policies": ["full"],
            "networks": ["none", "none+tls"],
            "seq_lens": [16],
            "new_tokens": 1,
            "repeats": 3,
        }
    )
    console, counts = Console(file=io.StringIO()), dict[tuple[bool, str], list[tuple[float, dict[str, int]]]]()
    for record in sweep_in(tmp_path / "out", experiment, expand(experiment), console=console).records:
        assert record.error is None
        assert record.check is not None
        assert record.check.max_abs_logit_error < 0.1  # a random model's best two tokens may be nearer to each other
        # the kernel also counts foreign traffic over loopback
        assert not [warning for warning in record.warnings if "the kernel of" not in warning]
        assert record.totals is not None
        for phase in ("online", "offline"):
            total = getattr(record.totals, phase)
            counts.setdefault((record.cell.network.tls, phase), []).append((total.rounds, total.sent_bytes))
    # a truncation that fails repeats a segment, which hardly happens in all three repeats of a cell
    least = {key: min(found, key=lambda count: count[0]) for key, found in counts.items()}
    for phase in ("online", "offline"):
        assert len(counts[False, phase]) == 3
        assert least[False, phase] == least[True, phase]
