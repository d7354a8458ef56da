"""The verbs of the hub: replace its bridge with a relay and restore the bridge."""

from collections.abc import Mapping, Sequence
from typing import Any

from netem.errors import ShapingError
from netem.host import HostService
from netem.lab.links import join_bridge, leave_bridge, switch_on
from netem.process import Child, command

_UNSHAPED = {"flows": [], "compensation_ms": 0.0}


class Switch:
    """The ports of the hub, connected by a bridge, or by a relay while a session needs one.

    If the relay is killed, no packets are forwarded: links that should be shaped never become unshaped silently. On a
    kernel without bridges the relay always connects the ports, with no flows while no session has it.

    Args:
        ports: Names of the ports.
    """

    def __init__(self, ports: Sequence[str]) -> None:
        self._ports = tuple(ports)
        self._relay: Child | None = None
        self._holder: object = None
        self._bridged = switch_on(self._ports)
        if not self._bridged:
            self._start_relay(_UNSHAPED)

    def relay(self, holder: object, given: dict[str, Any]) -> dict[str, Any]:
        """Set the flows of the relay, starting it if necessary.

        Returns:
            Counters and process id of the relay.

        Raises:
            ShapingError: Another session has the relay.
        """
        if self._holder not in (None, holder):
            raise ShapingError("the links of this lab are shaped already; wait for the other run, or use another lab")
        self._holder = holder
        if self._relay is not None:
            return {**self._relay.ask(given), "pid": self._relay.pid}
        leave_bridge(self._ports)
        try:
            relay = self._start_relay(given)
        except BaseException:
            self._give_back()
            raise
        return {**relay.answer, "pid": relay.pid}

    def end_relay(self, holder: object) -> None:
        """Return the ports to the bridge, or to an unshaped relay, if this holder has the relay."""
        if self._holder is holder:
            self._give_back()

    def _start_relay(self, given: Mapping[str, Any]) -> Child:
        self._relay = Child(command("netem.relay_process"), {"ports": self._ports, **given})
        return self._relay

    def _give_back(self) -> None:
        self._holder = None
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        if self._bridged:
            join_bridge(self._ports)
        else:
            self._start_relay(_UNSHAPED)


class HubService(HostService):
    """The verbs of a host, and `relay(flows, compensation_ms)`, which returns the relay's counters, and `relay_end`.

    Args:
        switch: The ports of the hub.
    """

    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self._switch = switch
        self._verbs["relay"] = self._set_relay
        self._verbs["relay_end"] = self._end_relay

    def close(self) -> None:
        """Close all probe servers, remove all rules and end the relay."""
        super().close()
        self._switch.end_relay(self)

    def _set_relay(self, **given: Any) -> dict[str, Any]:
        return self._switch.relay(self, given)

    def _end_relay(self) -> dict[str, Any]:
        self._switch.end_relay(self)
        return {}
