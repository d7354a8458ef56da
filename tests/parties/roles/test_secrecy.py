"""Who holds what: the memory of every party and every byte between them, searched for the secrets of the others."""

import contextlib
import json
import resource
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from torch import Tensor

from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.folding import fold
from tests.helpers.four import Four

pytestmark = pytest.mark.slow

MODEL = "random:tiny-llama"
SEQ_LEN, NEW_TOKENS = 32, 2
PAGE = resource.getpagesize()
SHIFT = np.uint8(91)


def memory() -> list[bytes]:
    """The writable memory of this process, by mapping: heap, stacks, tensors."""
    for _ in range(20):
        with contextlib.suppress(OSError):  # a mapping went while it was read, as a thread's stack does: look again
            return mappings()
    return mappings()


def mappings() -> list[bytes]:
    regions = []
    with Path("/proc/self/maps").open() as maps, Path("/proc/self/mem").open("rb", 0) as mem:
        for line in maps:
            span, rights = line.split()[:2]
            if not rights.startswith("rw") or "[v" in line:
                continue
            for start, stop in touched(*(int(part, 16) for part in span.split("-"))):
                mem.seek(start)
                regions.append(mem.read(stop - start))
    return regions


def touched(start: int, stop: int) -> list[tuple[int, int]]:
    """The parts of a mapping that this process wrote to, which most pages of stacks and arenas were not.

    A private page that another process maps, too, is from before this one was forked, when there was no secret.
    """
    with Path("/proc/self/pagemap").open("rb", 0) as pages:
        pages.seek(start // PAGE * 8)
        entries = np.frombuffer(pages.read((stop - start) // PAGE * 8), dtype=np.uint64)
    swapped, backed, alone = ((entries >> np.uint64(bit)) & np.uint64(1) > 0 for bit in (62, 61, 56))
    present = entries >> np.uint64(63) > 0
    held = swapped | present & (backed | alone)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]])))
    return [(start + int(first) * PAGE, start + int(last) * PAGE) for first, last in edges.reshape(-1, 2)]


class Search:
    """Counts, in the process where it is called, how many of the given secrets its memory holds."""

    def __init__(self, secrets: dict[str, list[bytes]]) -> None:
        # kept shifted, so that the search never finds itself
        self.shifted = {
            name: [np.frombuffer(item, np.uint8) + SHIFT for item in items] for name, items in secrets.items()
        }

    def __call__(self) -> dict[str, list[int]]:
        regions = memory()  # before a secret is shifted back
        return {
            name: [i for i, item in enumerate(items) if held(item, regions)] for name, items in self.shifted.items()
        }


def held(shifted: Any, regions: list[bytes]) -> bool:
    """Whether memory holds a secret, which leaves no copy behind for the next look."""
    item = shifted - SHIFT
    try:
        return any(region.find(memoryview(item)) >= 0 for region in regions)
    finally:
        item.fill(0)


def encodings(values: Tensor) -> list[bytes]:
    """How numbers could be written down: float32, float64, fixed point."""
    fixed = (values.double() * 2**16).round().long()
    return [values.float().numpy().tobytes(), values.double().numpy().tobytes(), fixed.numpy().tobytes()]


def weight_secrets() -> list[bytes]:
    """Unpublished rows of the weights: as loaded and as folded."""
    spec = load_spec(MODEL)
    weights = load_weights(MODEL)
    folded = fold(spec, weights)
    rows = [weights["embed"][17], weights["layers.1.up.weight"][5], folded["layers.0.qkv"][3], folded["lm_head"][9]]
    return [item[:64] for row in rows for item in encodings(row.contiguous())]


def prompt_secrets(prompt: str) -> list[bytes]:
    """The prompt as text and as tokens."""
    tokens = load_tokenizer(MODEL).encode(prompt)[:SEQ_LEN]
    assert len(tokens) == SEQ_LEN
    return [prompt.encode(), struct.pack(f"<{SEQ_LEN}q", *tokens), json.dumps(tokens[:12])[1:-1].encode()]


@pytest.fixture(scope="module", params=[("crypten", "shared"), ("fss", "shared"), ("fss", "mpc")], ids="-".join)
def observed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One private cell, with every wire recorded and every memory searched."""
    path = tmp_path_factory.mktemp("secrecy") / "prompt.txt"
    prompt = " ".join(secrets.token_hex(4) for _ in range(12))  # drawn here, so that no module's constants hold it
    path.write_text(prompt)
    job = {
        "engine": request.param[0], "model": MODEL, "options": {"prefill": request.param[1]},
        "policy": {"name": "mpcache", "fine_size": 4, "coarse_size": 8},
        "prompt": {"text_file": str(path)}, "seq_len": SEQ_LEN, "new_tokens": NEW_TOKENS,
    }  # fmt: skip
    hidden = {"weights": weight_secrets(), "prompt": prompt_secrets(prompt)}
    with Four(Search(hidden), record=True) as four:
        results = four.run(job)
        wires = {pair: bytes(wire.seen) for pair, wire in four.wires.items()}
        assert not any(psutil.Process(process.pid).children() for process in four.processes.values()), "see `touched`"
    assert all("error" not in result for result, _ in results.values()), results
    assert all(len(looks) == 2 for _, looks in results.values()), "each memory is searched while decoding and after"
    found = {
        role: {name: sorted({i for look in looks for i in look[name]}) for name in hidden}
        for role, (_, looks) in results.items()
    }
    return found, wires, results, hidden


def test_the_search_finds_secrets_that_a_process_holds(observed: Any) -> None:
    found, _, results, hidden = observed
    assert results["referee"][0]["check"]["tokens_compared"] == NEW_TOKENS  # not the same: a random prompt may tie
    assert found["referee"]["weights"], "the referee holds the weights: a search that misses them proves nothing"
    held = [bytes(bytearray(item)) for item in hidden["prompt"]]  # this process holds the prompt in every form
    assert Search({"prompt": hidden["prompt"]})()["prompt"] == list(range(len(held)))


def test_no_party_holds_another_partys_secret(observed: Any) -> None:
    found, _, _, _ = observed
    assert found["client"]["weights"] == []
    assert found["server"]["prompt"] == []
    assert found["dealer"] == {"weights": [], "prompt": []}


def test_nothing_secret_crosses_a_wire(observed: Any) -> None:
    _, wires, _, hidden = observed
    assert sum(map(len, wires.values())) > 1_000_000
    for pair, seen in wires.items():
        for name, items in hidden.items():
            for item in items:
                assert item not in seen, f"{name} crossed the wire between {pair}"


def test_messages_between_the_parties_are_incompressible(observed: Any) -> None:
    _, wires, _, _ = observed
    seen = wires["server", "client"]
    assert len(zlib.compress(seen)) > 0.97 * len(seen), "openings are masked, so they must look random"


def test_the_servers_result_reveals_nothing_of_the_text(observed: Any) -> None:
    _, _, results, hidden = observed
    output = json.dumps(results["server"][0]) + json.dumps(results["dealer"][0])
    assert hidden["prompt"][0].decode()[:17] not in output
    assert "text" not in results["client"][0], "the text is only handed out when the job asks for it"
