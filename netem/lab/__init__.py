"""The lab: hosts on one machine, each with namespaces, an address, `/tmp` and `/dev/shm` of its own, on one hub.

It knows nothing of what runs on its hosts.
"""

from netem.lab.client import Host, Lab, attached, labs
from netem.lab.supervisor import DATA_PORTS

__all__ = ["DATA_PORTS", "Host", "Lab", "attached", "labs"]
