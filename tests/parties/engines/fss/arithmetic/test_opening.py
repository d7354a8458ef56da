"""The messages of a run: masked numbers look uniform, and sizes and order do not depend on the secrets."""

import json
import math
import struct
from typing import Any

import numpy as np
import pytest

from parties.engines.fss.arithmetic.opening import PLACE_BYTES, PROGRAM_BYTES
from parties.engines.keystream import SEED_BYTES
from parties.transport.frame import HEADER_BYTES
from tests.helpers.four import Four

SECRETS = {"some": (0, 1), "others": (7, 2)}  # seeds of prompt and weights


def job(name: str) -> dict[str, Any]:
    prompt, weights = SECRETS[name]
    return {
        "engine": "fss", "model": f"random:tiny-llama?seed={weights}", "seed": prompt,
        "policy": {"name": "mpcache", "fine_size": 4, "coarse_size": 8, "ahead": True, "use": "rows"},
        "prompt": {"random_tokens": True}, "seq_len": 40, "new_tokens": 2,
    }  # fmt: skip


def payloads(stream: bytes) -> list[bytes]:
    """The frames of one direction, after the hello."""
    start = 4 + int.from_bytes(stream[:4])
    found = []
    while start < len(stream):
        (length,) = struct.unpack_from("!Q", stream, start)
        start += HEADER_BYTES
        found.append(stream[start : start + length])
        start += length
    return found


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    """Frames by wire and direction, and what the parties counted, for each set of secrets."""
    seen = {}
    for name in SECRETS:
        with Four(record=True) as four:
            results = {role: outcomes[0] for role, outcomes in four.run(job(name)).items()}
            assert all("error" not in result for result in results.values()), results
            frames = {pair: [payloads(bytes(way)) for way in wire.ways] for pair, wire in four.wires.items()}
        seen[name] = (frames, results)
    return seen


def shapes(results: dict[str, Any], role: str) -> dict[str, Any]:
    """Bytes, messages and rounds of each stage."""
    counted = ("sent_bytes", "received_bytes", "messages", "rounds")
    return {
        stage["stage"]: [stage[key] for key in counted]
        for stage in results[role]["stages"]
        if stage["phase"] in ("online", "setup")
    }


def test_sizes_order_rounds_and_stages_do_not_depend_on_weights_and_prompts(runs: Any) -> None:
    (some, first), (others, second) = runs["some"], runs["others"]
    rounds = [sum(stage[3] for stage in shapes(results, "client").values()) for results in (first, second)]
    if rounds[0] != rounds[1]:
        pytest.skip("a truncation failed in one of the two runs, as in one of a thousand")
    for role in ("client", "server"):
        assert shapes(first, role) == shapes(second, role)
    pair = ("server", "client")
    for way in range(2):
        lengths = [[len(frame) for frame in run[pair][way]] for run in (some, others)]
        assert len(lengths[0]) > 100
        assert lengths[0][1:] == lengths[1][1:], "only the card that names the model may be longer or shorter"


def test_counters_between_the_parties_do_not_depend_on_the_secrets(runs: Any) -> None:
    """The unmasked bytes of an opening are digests of the position in the program and of public constants,
    including the session's key, so they differ between sessions and not between the two parties."""
    for frames, _ in runs.values():
        ways = [
            [frame[:PLACE_BYTES] for frame in way if len(frame) > PLACE_BYTES] for way in frames["server", "client"]
        ]
        assert set(ways[1]) <= set(ways[0])
    places = [
        [frame[:PROGRAM_BYTES] for frame in runs[name][0]["server", "client"][1] if len(frame) > PLACE_BYTES]
        for name in SECRETS
    ]
    shorter = min(map(len, places))
    assert places[0][:shorter] == places[1][:shorter]


@pytest.mark.parametrize("way", [0, 1], ids=["server to client", "client to server"])
@pytest.mark.parametrize("name", SECRETS)
def test_messages_between_the_parties_look_uniform(runs: Any, name: str, way: int) -> None:
    frames = runs[name][0]["server", "client"][way]
    body = b"".join(frame[PLACE_BYTES:] for frame in frames[1:])
    octets = np.frombuffer(body, dtype=np.uint8)
    assert octets.size > 100_000
    counts = np.bincount(octets, minlength=256)
    chi_square = float(((counts - octets.size / 256) ** 2 / (octets.size / 256)).sum())
    assert chi_square < 255 + 6 * math.sqrt(2 * 255)
    numbers = octets.astype(np.float64) - 127.5
    for lag in (1, 2, 4, 8, 16):
        correlation = float((numbers[lag:] * numbers[:-lag]).mean() / numbers.var())
        assert abs(correlation) * math.sqrt(octets.size) < 6


def test_the_dealer_receives_halves_of_seeds_public_numbers_and_which_segments_are_repeated(runs: Any) -> None:
    """Only repeats may depend on the secrets: docs/protocols.md states what the dealer learns from them."""
    received: dict[str, dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for name in SECRETS:
        frames = runs[name][0]
        sent = {pair: frames[pair][1] for pair in (("dealer", "client"), ("dealer", "server"))}
        assert {len(half) for (half, *_) in sent.values()} == {SEED_BYTES}
        received[name] = {pair: [json.loads(frame) for frame in requests] for pair, (_, *requests) in sent.items()}
    keys = {"install": {"shapes"}, "decode": {"plan", "attempt"}, "go": {"index"}, "again": {"index", "attempt"},
            "credit": {"upto"}, "end": set()}  # fmt: skip
    for requests in received["some"].values():
        for request in requests:
            assert set(request) - {"do"} == keys[request["do"]]
    assert {request["do"] for request in received["some"]["dealer", "server"]} <= {"credit", "end"}
    plans = [[r for r in received[name]["dealer", "client"] if r["do"] in ("install", "decode")] for name in SECRETS]
    assert plans[0] == plans[1]
