"""A fake of `nvidia-ml-py`, to be imported as `pynvml`: GPUs of 100 GB, one name per GPU.

`MPCBENCH_FAKE_GPUS` has their identifiers, separated by commas; without it the driver is missing.
"""

import os
from types import SimpleNamespace

TOTAL = 100 * 10**9


class NVMLError(Exception):
    """The error that every call may raise."""


def _uuids() -> list[str]:
    return os.environ.get("MPCBENCH_FAKE_GPUS", "").split(",")


def nvmlInit() -> None:  # noqa: N802 - the library's names
    if "MPCBENCH_FAKE_GPUS" not in os.environ:
        raise NVMLError("Driver Not Loaded")


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_uuids())


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "580.1"


def nvmlDeviceGetHandleByIndex(index: int) -> str:  # noqa: N802
    return _uuids()[index]


def nvmlDeviceGetMemoryInfo(handle: str) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(total=TOTAL, free=TOTAL, used=0)


def nvmlDeviceGetMigMode(handle: str) -> list[int]:  # noqa: N802
    if "mig" not in handle:
        raise NVMLError("Not Supported")
    return [1, 1]


def nvmlDeviceGetName(handle: str) -> str:  # noqa: N802
    return "Fake H1"


def nvmlDeviceGetUUID(handle: str) -> str:  # noqa: N802
    return handle
