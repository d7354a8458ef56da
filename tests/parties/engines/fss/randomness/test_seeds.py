"""Seeds that a party and the dealer draw together, and the permutation key of a session."""

import os
from typing import Any

import pytest
import torch

from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.randomness import seeds
from parties.engines.fss.randomness.dcf import PERMUTATION_KEY_BYTES, Permutation, evaluate, generate
from parties.engines.fss.randomness.seeds import CommitmentBroken, DealerCoinToss, drawn_seed
from parties.engines.keystream import SEED_BYTES
from parties.errors import OutOfStep, PeerLost
from parties.metering.meter import StageMeter
from parties.transport.link import Link
from tests.helpers import comparisons
from tests.helpers.comparisons import numbers
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import later, tcp_pair


def ends(role: str) -> tuple[Link, Link]:
    """The party's end and the dealer's."""
    near, far = tcp_pair()
    return Link(near, "dealer", StageMeter(), PATIENCE_S), Link(far, role, StageMeter(), PATIENCE_S)


def session() -> tuple[dict[str, bytes], set[bytes], Any]:
    """Runs one set-up of all three: the parties' seeds and permutation keys, and the dealer's."""
    links = {role: ends(role) for role in ("client", "server")}
    drawn = {role: later(drawn_seed, mine, role) for role, (mine, _) in links.items()}
    dealer = Dealer(links["client"][1], links["server"][1], StageMeter())
    results = {role: future.result(PATIENCE_S) for role, future in drawn.items()}
    for pair in links.values():
        for link in pair:
            link.close()
    return {role: seed for role, (seed, _) in results.items()}, {key for _, key in results.values()}, dealer


def test_dealer_and_party_have_one_seed_and_all_three_one_permutation_fresh_for_each_session() -> None:
    found = [session() for _ in range(2)]
    for drawn, permutations, dealer in found:
        streams = {"client": dealer._source.client, "server": dealer._source.server}
        for role, seed in drawn.items():
            assert streams[role]._key.key == seed
        assert permutations == {dealer._source.permutation.key}
    assert len({seed for drawn, _, _ in found for seed in drawn.values()}) == 4
    assert found[0][1].isdisjoint(found[1][1])


def test_a_session_of_another_permutation_has_other_keys_and_the_same_results() -> None:
    width = 20
    alpha, x, own = numbers(width, 500), numbers(width, 500, 1, seed=1), comparisons.seeds(500)
    words = []
    for _ in range(2):
        permutation = Permutation(os.urandom(PERMUTATION_KEY_BYTES))
        key = generate(permutation, alpha, width, *own)
        shares = [evaluate(permutation, party, x, width, own[party], key) for party in range(2)]
        assert torch.equal(shares[0] ^ shares[1], (x < alpha[:, None]).to(torch.uint8))
        words.append(key)
    assert not torch.equal(words[0], words[1])


def test_both_halves_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another half of the party gives another seed for the same half of the dealer, and vice versa."""
    halves = iter([b"d" * SEED_BYTES, b"p" * SEED_BYTES, b"d" * SEED_BYTES, b"q" * SEED_BYTES,
                   b"e" * SEED_BYTES, b"p" * SEED_BYTES])  # fmt: skip
    monkeypatch.setattr("parties.engines.fss.randomness.seeds.os.urandom", lambda _: next(halves))
    drawn = set()
    for _ in range(3):
        mine, theirs = ends("client")
        toss = DealerCoinToss(theirs)
        found = later(drawn_seed, mine, "client")
        assert toss.seed(bytes(PERMUTATION_KEY_BYTES)) == found.result(PATIENCE_S)[0]
        drawn.add(found.result()[0])
        mine.close()
        theirs.close()
    assert len(drawn) == 3


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_dealer_that_chooses_its_half_after_the_partys_is_detected(role: str) -> None:
    """The dealer searches for a seed with a property, here a first byte of zero, which takes some 256 halves."""
    mine, theirs = ends(role)
    drawn = later(drawn_seed, mine, role)
    theirs.send(seeds._commitment(role, os.urandom(SEED_BYTES)))
    partys = bytes(theirs.receive())
    wanted = next(half for half in map(os.urandom, [SEED_BYTES] * 10**5) if not seeds._seed(role, half, partys)[0])
    theirs.send(wanted + bytes(PERMUTATION_KEY_BYTES))
    with pytest.raises(CommitmentBroken, match="another half of the seed than it had committed to"):
        drawn.result(PATIENCE_S)
    with pytest.raises(PeerLost):
        theirs.receive()


def test_a_half_for_the_other_party_does_not_open() -> None:
    mine, theirs = ends("client")
    drawn, half = later(drawn_seed, mine, "client"), os.urandom(SEED_BYTES)
    theirs.send(seeds._commitment("server", half))
    theirs.receive()
    theirs.send(half + bytes(PERMUTATION_KEY_BYTES))
    with pytest.raises(CommitmentBroken):
        drawn.result(PATIENCE_S)
    theirs.close()


@pytest.mark.parametrize("count", [SEED_BYTES - 1, SEED_BYTES + 1])
def test_a_half_of_another_length_is_refused(count: int) -> None:
    mine, theirs = ends("client")
    toss = DealerCoinToss(theirs)
    mine.receive()
    mine.send(bytes(count))
    with pytest.raises(OutOfStep, match=f"{SEED_BYTES} bytes"):
        toss.seed(bytes(PERMUTATION_KEY_BYTES))
    mine.close()
