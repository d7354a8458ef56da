"""NVIDIA GPUs of this host, through NVIDIA's management library (NVML) and its Python package `nvidia-ml-py`.

Nothing here starts CUDA, so that a process that only looks takes no memory of a GPU.
"""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        index: Its number in NVML, which is that of `nvidia-smi`.
        uuid: Its identifier, such as `GPU-6b2f8a3e-...`; the same in every container and namespace.
        name: Its model.
        total: Memory in bytes.
        free: Free memory in bytes.
        partitioned: Whether it is divided into instances (MIG).
    """

    index: int
    uuid: str
    name: str
    total: int
    free: int
    partitioned: bool = False

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


@dataclass(frozen=True)
class Cards:
    """The GPUs of a host.

    Attributes:
        cards: The GPUs in the order of their numbers.
        driver: Version of the driver; empty if it cannot be read.
        problem: Why no GPU can be read; empty if they can be.
    """

    cards: tuple[Card, ...] = ()
    driver: str = ""
    problem: str = ""

    def visible(self, names: str | None) -> tuple[Card, ...]:
        """The GPUs that a process sees.

        Args:
            names: `CUDA_VISIBLE_DEVICES` of the process: numbers or beginnings of identifiers, in the process's order;
                None if it is not set. As in CUDA, the first name of no GPU hides all that follow.
        """
        if names is None:
            return self.cards
        seen: list[Card] = []
        for name in (part.strip() for part in names.split(",")):
            found = [card for card in self.cards if name and (name == str(card.index) or card.uuid.startswith(name))]
            if len(found) != 1:
                break
            seen += found
        return tuple(seen)


def installed_cards() -> Cards:
    """All GPUs of this host, whatever this process may use."""
    nvml, problem = _started()
    if nvml is None:
        return Cards(problem=problem)
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        cards = tuple(_card(nvml, index, handle) for index, handle in enumerate(handles))
        return Cards(cards, _text(nvml.nvmlSystemGetDriverVersion()), "" if cards else "the driver finds no GPU")
    except nvml.NVMLError as error:
        return Cards(problem=f"NVML: {error}")


def own_cards() -> Cards:
    """The GPUs that this process may use."""
    found = installed_cards()
    return Cards(found.visible(os.environ.get(VISIBLE)), found.driver, found.problem)


def card_of(uuid: str) -> Card | None:
    """The GPU of this host with an identifier."""
    return next((card for card in installed_cards().cards if card.uuid == uuid), None)


def memory_and_busy_share(uuid: str) -> tuple[int, int, float] | None:
    """Memory in use and total memory of a GPU, in bytes, and the share of time in which it computed.

    Args:
        uuid: Its identifier.

    Returns:
        None without NVML, or for a GPU that does not report these, such as a virtual or partitioned one.
    """
    nvml, _ = _started()
    if nvml is None:
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return memory.used, memory.total, nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:
        return None


@cache
def _started() -> tuple[Any, str]:
    """The library, initialised; or None and the reason."""
    try:
        import pynvml
    except ImportError:
        return None, "the package nvidia-ml-py is not installed; run: pip install nvidia-ml-py"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}; install NVIDIA's driver"
    return pynvml, ""


def _card(nvml: Any, index: int, handle: Any) -> Card:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        partitioned = bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # most GPUs cannot be divided
        partitioned = False
    name, uuid = _text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle))
    return Card(index, uuid, name, memory.total, memory.free, partitioned)


def _text(value: str | bytes) -> str:
    """A text of the library, whose older versions give bytes."""
    return value.decode() if isinstance(value, bytes) else value
