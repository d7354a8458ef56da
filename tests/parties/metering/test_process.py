"""GPU metrics of a process, with a fake of NVIDIA's library, since the test machine has no GPU; its memory."""

import gc
import sys
import weakref
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch

from parties.metering import nvml, process

UUID = "6b2f8a3e-0000-1111-2222-333344445555"


class FakeNvml(ModuleType):
    """The four calls of `nvidia-ml-py` that are used, as its version 13 has them."""

    class NVMLError(Exception):
        """The error that every call may raise."""

    def __init__(self, fails: str = "") -> None:
        super().__init__("pynvml")
        self._fails = fails

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        self._perhaps("init")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._perhaps("handle")
        assert uuid == f"GPU-{UUID}"
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        assert handle == "handle"
        return SimpleNamespace(used=3 << 30, total=16 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        self._perhaps("rates")
        return SimpleNamespace(gpu=37, memory=5)

    def _perhaps(self, step: str) -> None:
        if self._fails == step:
            raise self.NVMLError("not supported")


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1 << 30)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=UUID))
    nvml._started.cache_clear()
    yield
    nvml._started.cache_clear()


def gpu_readings() -> dict[str, float]:
    return {name: value for name, value in process.process_readings() if "_gpu_" in name}


def test_a_gpu_is_read_through_the_library_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert gpu_readings() == {
        "mpcbench_gpu_allocated_bytes": 1 << 30,
        "mpcbench_gpu_peak_allocated_bytes": 2 << 30,
        "mpcbench_gpu_memory_used_bytes": 3 << 30,
        "mpcbench_gpu_memory_limit_bytes": 16 << 30,
        "mpcbench_gpu_busy_ratio": 0.37,
    }


@pytest.mark.parametrize("fails", ["missing", "init", "handle", "rates"])
def test_without_the_library_or_its_help_the_rest_is_still_served(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None if fails == "missing" else FakeNvml(fails))
    assert set(gpu_readings()) == {"mpcbench_gpu_allocated_bytes", "mpcbench_gpu_peak_allocated_bytes"}


def test_a_process_that_has_not_used_a_gpu_does_not_touch_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "memory_allocated", None)
    assert gpu_readings() == {}


class Circle:
    """An object that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


def test_collections_pass_over_what_is_loaded_but_garbage_is_not_kept() -> None:
    kept, garbage = Circle(), weakref.ref(Circle())
    assert garbage() is not None
    process.keep_what_is_loaded()
    assert garbage() is None
    assert not any(kept is found for found in gc.get_objects())
    later = weakref.ref(Circle())
    process.release_memory()
    assert later() is None
