"""GPUs of a host through NVIDIA's library, of which the tests have a fake."""

import sys
from collections.abc import Iterator

import pytest

from parties.metering import nvml
from parties.metering.nvml import Card, Cards, card_of, installed_cards, own_cards
from tests.helpers import fake_nvml


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml)
    monkeypatch.setenv("MPCBENCH_FAKE_GPUS", "GPU-a1,GPU-mig,GPU-a2")
    nvml._started.cache_clear()
    yield
    nvml._started.cache_clear()


def test_cards_are_read_with_their_driver_and_partitions() -> None:
    found = installed_cards()
    assert (found.driver, found.problem) == ("580.1", "")
    assert found.cards[1] == Card(1, "GPU-mig", "Fake H1", fake_nvml.TOTAL, fake_nvml.TOTAL, partitioned=True)
    assert [card.partitioned for card in found.cards] == [False, True, False]
    assert card_of("GPU-a2") == found.cards[2]
    assert card_of("GPU-elsewhere") is None


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-a2, 1", [2, 1]),
        ("0,7,1", [0]),  # as CUDA does: nothing after a name of no GPU
        ("GPU-a", []),  # the beginning of two
    ],
)
def test_a_process_sees_what_cuda_visible_devices_names(
    monkeypatch: pytest.MonkeyPatch, names: str | None, seen: list[int]
) -> None:
    assert [card.index for card in installed_cards().visible(names)] == seen
    if names is not None:
        monkeypatch.setenv(nvml.VISIBLE, names)
        assert [card.index for card in own_cards().cards] == seen


@pytest.mark.parametrize(("missing", "words"), [("package", "pip install nvidia-ml-py"), ("driver", "Not Loaded")])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, words: str) -> None:
    monkeypatch.delenv("MPCBENCH_FAKE_GPUS")
    if missing == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    found = installed_cards()
    assert found == Cards(problem=found.problem)
    assert words in found.problem
