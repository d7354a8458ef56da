"""A Ray cluster of several nodes on this machine, for tests that depend on its nodes."""

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

STORE = 80_000_000


@contextlib.contextmanager
def emulated_cluster(head: dict[str, Any], *nodes: dict[str, Any]) -> Iterator[Cluster]:
    """A head and further `nodes`, joined by this process; all that Ray writes lies in a folder of the cluster's own.

    Ray notes the address of a new cluster in its default folder. That folder may be absent, and the note would
    lead a user's own `address="auto"` to the cluster of a test: RAY_TMPDIR moves it.
    """
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))
    (folder / "ray").mkdir()
    head = {"object_store_memory": STORE, "temp_dir": str(folder / "ray"), "include_dashboard": False} | head
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tip: In future versions of Ray", category=FutureWarning)
            cluster = Cluster(initialize_head=True, head_node_args=head)
            for node in nodes:
                cluster.add_node(object_store_memory=STORE, **node)
            ray.init(address=cluster.address, log_to_driver=False)
            cluster.wait_for_nodes()
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
