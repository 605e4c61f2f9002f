"""A node of a cluster dies in mid-stream: nothing is lost, and the terminal says it in one sentence."""

import logging
import sys
import time

import pytest

from loop.hosting.config import HostingConfig, RoleConfig
from loop.hosting.engine import started_ray
from loop.stages import Stage, Stream, collect

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Wait:
    """Takes half a second for each row."""

    def __call__(self, batch):
        time.sleep(0.5 * len(batch))
        return [{"done": row["number"]} for row in batch]

    def blank(self):
        return {"done": -1}


@pytest.fixture
def cluster(monkeypatch):
    """A head and two nodes of one CPU each; started as a run connects to them."""
    import ray.cloudpickle
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    others = [nodes.add_node(num_cpus=1) for _ in range(2)]
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    try:
        with started_ray(1):
            yield nodes, others
    finally:
        nodes.shutdown()


def test_a_lost_node_costs_no_row_and_is_one_sentence(cluster, caplog, capfd):
    nodes, (first, _) = cluster
    role = RoleConfig(num_cpus=0.5, num_actors=5, batch_size=2)
    rows = tuple({"id": f"row{number:03d}", "number": number, "error": ""} for number in range(100))
    seen = []

    def lose_a_node(row):
        seen.append(row["id"])
        if len(seen) == 10:
            nodes.remove_node(first, allow_graceful=False)

    stream = Stream(rows=rows).then(Stage(name="wait", open_component=Wait, role=role))
    with caplog.at_level(logging.WARNING, "loop"):
        collected = collect(stream, HostingConfig(engine="ray"), lose_a_node)
    assert [row["done"] for row in collected.rows] == list(range(100))
    assert [record.message for record in caplog.records if "lost 1 node," in record.message]
    assert capfd.readouterr() == ("", "")
