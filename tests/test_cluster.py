"""cluster.yaml, as Ray's own launcher reads it: valid, with token authentication, and nothing open to the world."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from loop.config_files import load
from loop.hosting.placement import Node, unplaced

ROOT = Path(__file__).parents[1]
FILE = ROOT / "cluster.yaml"
ANYWHERE = re.compile(r"0\.0\.0\.0|::/0|--dashboard-host=(?!127\.0\.0\.1)|--node-ip-address")


@pytest.fixture
def cluster():
    return yaml.safe_load(FILE.read_text())


def test_rays_launcher_accepts_it(cluster):
    prepared = as_launched(cluster)
    assert prepared["available_node_types"]["gpu"]["min_workers"] == 0
    assert prepared["available_node_types"]["gpu"]["max_workers"] == prepared["max_workers"] >= 1
    assert "GPU" not in prepared["available_node_types"]["head"]["resources"]


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "unknown_key", 1),
        (("auth",), "unknown_key", 1),
        (("available_node_types", "gpu"), "unknown_key", 1),
        ((), "head_node_type", "nobody"),
        ((), "max_workers", "four"),
    ],
)
def test_rays_launcher_refuses_what_it_does_not_know(cluster, place, key, value):
    section = cluster
    for part in place:
        section = section[part]
    section[key] = value
    with pytest.raises(Exception, match=rf"{key}|{value}"):
        as_launched(cluster)


def test_every_node_starts_with_token_authentication(cluster):
    prepared = as_launched(cluster)
    starts = [
        line
        for part in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in prepared[part]
        if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in line for line in starts)
    assert prepared["file_mounts"] == {"/home/ubuntu/.ray/auth_token": "~/.ray/auth_token"}
    assert "disabled" not in FILE.read_text()


def test_nothing_is_open_to_the_world(cluster):
    prepared = as_launched(cluster)
    assert not ANYWHERE.findall(yaml.safe_dump(prepared))
    for name, node in prepared["available_node_types"].items():
        assert node["node_config"].get("SecurityGroupIds"), (
            f"{name}: Ray would make a group that opens ssh to the world"
        )


def test_rays_own_firewall_would_be_open():
    """The reason for SecurityGroupIds on every node type: should Ray close its default, they may go."""
    import ray

    source = Path(ray.__file__).parent / "autoscaler/_private/aws/config.py"
    assert '"FromPort": 22' in source.read_text()
    assert ANYWHERE.search(source.read_text())


def test_the_nodes_run_the_ray_that_the_project_pins():
    import ray

    named = re.findall(r'"ray\[default\]==([\d.]+)"', FILE.read_text())
    assert len(named) == 2  # in the instructions and in the set-up
    assert set(named) == {ray.__version__}


def test_the_hosting_config_has_a_place_on_the_grown_cluster(cluster):
    hosting = load([ROOT / "configs/quickstart.yaml", ROOT / "configs/hosting/cluster.yaml"]).hosting
    assert unplaced(hosting, nodes(cluster, num_workers=cluster["max_workers"])) == ""
    assert "has no place" in unplaced(hosting, nodes(cluster, num_workers=cluster["max_workers"] - 1))
    assert hosting.scale_up_timeout_s > 0


def nodes(cluster, num_workers):
    kinds = cluster["available_node_types"]
    alive = [kinds[cluster["head_node_type"]]] + [kinds["gpu"]] * num_workers
    return [Node(cpus=kind["resources"]["CPU"], gpus=kind["resources"].get("GPU", 0)) for kind in alive]


def as_launched(cluster):
    """The config as `ray up` sees it, its defaults filled in; raises where the launcher would refuse it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared
