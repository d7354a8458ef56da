"""The lab: emulated hosts on one machine, each with its own namespaces, address, `/tmp` and `/dev/shm`, on one hub.

It is independent of the programs that run on its hosts.
"""

from netem.lab.client import Host, Lab, attached, labs
from netem.lab.supervisor import DATA_PORTS

__all__ = ["DATA_PORTS", "Host", "Lab", "attached", "labs"]
