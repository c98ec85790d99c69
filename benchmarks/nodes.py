"""A Ray cluster of several nodes on this computer, for the tests and the benchmark.

Rule: nodes are processes of their own, as on several computers; a lost one is killed, not asked to end.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STORE_BYTES = 256 << 20
"""Of each node, for what is on its way between stages."""


class Nodes:
    """The nodes of one cluster, the first of which is its head."""

    def __init__(self, count: int, cpus: int) -> None:
        # Before it is loaded.
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
        # Five answers must be missing before a node counts as lost; each is asked for so long after the last.
        os.environ |= {"RAY_health_check_period_ms": "500"}
        from ray.cluster_utils import Cluster

        self._cpus = cpus
        self._cluster = Cluster(initialize_head=True, head_node_args=self._describe())
        self._others: list[Any] = []
        for _ in range(count - 1):
            self.add()

    @property
    def address(self) -> str:
        return self._cluster.address

    def add(self) -> None:
        self._others.append(self._cluster.add_node(**self._describe()))

    def kill(self) -> None:
        """Let one be lost, and another come."""
        self._cluster.remove_node(self._others.pop(0), allow_graceful=False)
        self.add()

    def close(self) -> None:
        self._cluster.shutdown()

    def _describe(self) -> dict[str, Any]:
        return {"num_cpus": self._cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}


@contextmanager
def start_nodes(count: int, cpus: int = 1) -> Iterator[Nodes]:
    """A cluster of `count` nodes with `cpus` processors each, as far as Ray is told."""
    nodes = Nodes(count, cpus)
    try:
        yield nodes
    finally:
        nodes.close()


def main(count: str, cpus: str) -> None:
    """A cluster for another process: says its address, then takes orders (`kill`) until there are no more."""
    with start_nodes(int(count), int(cpus)) as nodes:
        print(nodes.address, flush=True)
        for order in sys.stdin:
            if order.strip() == "kill":
                nodes.kill()
            print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
