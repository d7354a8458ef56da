"""What the hub does beside carrying: swap its bridge for a relay and back."""

from collections.abc import Sequence
from typing import Any

from netem.host import HostService
from netem.lab.links import join_bridge, leave_bridge
from netem.process import Child, command


class HubService(HostService):
    """The verbs of a host, `relay(flows, compensation_ms)`, which answers with the relay's counters, and `relay_end`.

    The first call takes the ports from the bridge. If the relay is killed, nothing carries their packets: links that
    were asked to be shaped are never quietly unshaped.

    Args:
        ports: Names of the hub's ports.
    """

    def __init__(self, ports: Sequence[str]) -> None:
        super().__init__()
        self._ports = tuple(ports)
        self._relay: Child | None = None
        self._verbs["relay"] = self._set_relay
        self._verbs["relay_end"] = self._end_relay

    def close(self) -> None:
        """Give the ports back to the bridge."""
        super().close()
        self._end_relay()

    def _end_relay(self) -> dict[str, Any]:
        if self._relay is not None:
            self._relay.close()
            self._relay = None
            join_bridge(self._ports)
        return {}

    def _set_relay(self, **given: Any) -> dict[str, Any]:
        if self._relay is not None:
            return self._relay.ask(given)
        leave_bridge(self._ports)
        try:
            self._relay = Child(command("netem.relay"), {"ports": self._ports, **given})
        except BaseException:
            join_bridge(self._ports)
            raise
        return {**self._relay.answer, "pid": self._relay.pid}
