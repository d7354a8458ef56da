"""The memory of recorded segments, by the device that they run on."""

import torch

from parties.engines.fss.replay.inputs import Inputs
from parties.metering.meter import StageMeter


def memory_on(device: torch.device, seed: bytes, meter: StageMeter) -> Inputs:
    """Returns a party's memory for recorded segments on a device, which expands the seed there."""
    if device.type == "cpu":
        return Inputs(keeps_rows=True)
    from parties.engines.fss.replay.device_inputs import DeviceInputs  # Triton, which only a GPU needs

    return DeviceInputs(device, seed, meter)
