"""What fits where, worked out by hand: said before a run, for Ray would wait in silence."""

from pathlib import Path

import pytest

from actors.refiners.ssddet.component import SSDDetConfig
from loop.config import LoopConfig
from loop.config_files import load
from loop.hosting.config import HostingConfig
from loop.hosting.placement import STREAM, Node, gangs, num_gangs, stream_roles, unplaced, without_gpu

CONFIGS = Path(__file__).parents[3] / "configs"


def hosting(**roles):
    """A hosting whose roles ask for nothing unless said: (actors, CPUs, GPUs) each."""
    idle, workers = dict.fromkeys(STREAM, (1, 0.0, 0.0)), ("fit", "train")
    sections = idle | dict.fromkeys(workers, (1, 0.1, 0.0)) | roles
    number = dict.fromkeys(workers, "num_workers")
    return HostingConfig.model_validate(
        {
            name: {number.get(name, "num_actors"): count, "num_cpus": cpus, "num_gpus": gpus}
            for name, (count, cpus, gpus) in sections.items()
        }
    )


def nodes(*sizes):
    return [Node(cpus=cpus, gpus=gpus) for cpus, gpus in sizes]


@pytest.mark.parametrize(
    ("roles", "sizes", "fits"),
    [
        ({"generate": (2, 1, 0), "inspect": (1, 1, 0), "judge": (1, 1, 0)}, [(4, 0)], True),
        ({"generate": (2, 1, 0), "inspect": (1, 1, 0), "judge": (1, 1, 0)}, [(3.5, 0)], False),  # all three at once
        ({"generate": (3, 1, 0)}, [(2, 0), (1, 0)], True),
        ({"judge": (1, 1, 0), "keep": (2, 1, 0)}, [(2.5, 0)], False),
        ({"train": (1, 3, 0)}, [(2, 0), (2, 0)], False),  # one worker is not spread over nodes
        ({"train": (2, 2, 0), "generate": (2, 2, 0)}, [(4, 0)], True),  # training comes after the stream
        ({"inspect": (2, 0, 0.5)}, [(1, 1)], True),  # two actors share a GPU
        ({"inspect": (3, 0, 0.5)}, [(1, 1)], False),
        ({"inspect": (1, 1, 1), "generate": (4, 1, 0)}, [(4, 0), (1, 1)], True),  # the GPU's node is kept for its actor
        ({"train": (2, 1, 1)}, [(8, 1)], False),
        ({"generate": (10, 0.1, 0)}, [(1, 0)], True),  # ten tenths are one, whatever floats say
        ({}, [], False),  # no node at all
    ],
)
def test_what_fits(roles, sizes, fits):
    assert (unplaced(hosting(**roles), nodes(*sizes)) == "") is fits


def test_the_message_names_role_need_and_cluster():
    message = unplaced(hosting(generate=(2, 1, 0), inspect=(2, 1, 1)), nodes((8, 1)))
    assert message.startswith("hosting.inspect: an actor of 1 CPU and 1 GPU has no place")
    assert "asks for 4 CPUs and 2 GPUs at once, the cluster has 8 CPUs and 1 GPU on 1 node." in message
    assert "num_actors" in message


@pytest.mark.parametrize(
    ("train", "sizes", "expected"),
    [
        ((1, 1, 0), [(4, 0)], 4),
        ((2, 1, 0), [(3, 0)], 1),  # the third CPU is half a training
        ((2, 2, 0), [(3, 0), (3, 0)], 1),  # a worker is not spread over nodes, a training may be
        ((1, 1, 1), [(8, 2)], 2),
        ((1, 1, 0.5), [(8, 2), (8, 0)], 4),
        ((1, 4, 0), [(2, 0), (2, 0)], 0),
    ],
)
def test_trainings_that_have_a_place_together(train, sizes, expected):
    assert num_gangs(hosting(train=train).train, nodes(*sizes)) == expected


def test_asking_leaves_the_nodes_as_they_are():
    cluster = nodes((4, 1))
    assert unplaced(hosting(generate=(4, 1, 0)), cluster) == ""
    assert cluster == nodes((4, 1))


def test_the_gangs_hold_every_actor_largest_first():
    together = gangs(hosting(generate=(2, 1, 0), inspect=(1, 1, 1), judge=(1, 2, 0), train=(3, 2, 1)))
    assert [actor.role for actor in together["generate + inspect + judge + keep"]] == [
        "inspect",
        "judge",
        "generate",
        "generate",
        "keep",
    ]
    assert [actor.role for actor in together["train"]] == ["train"] * 3


def test_a_refiner_has_actors_of_its_own():
    config = LoopConfig(name="x", data={"format": "world"})
    assert stream_roles(config) == STREAM
    refining = config.model_copy(update={"refiner": SSDDetConfig()})
    assert stream_roles(refining) == ("generate", "inspect", "judge", "refine", "keep")
    asked = hosting(refine=(1, 1, 0))
    assert unplaced(asked, nodes((0.5, 0))) == ""
    assert unplaced(asked, nodes((0.5, 0)), stream_roles(refining)).startswith("hosting.refine: an actor of 1 CPU and")


def test_the_default_hosting_fits_the_smallest_laptop():
    """driver.engine gives a local Ray four logical CPUs at least."""
    assert unplaced(HostingConfig(), nodes((4, 0))) == ""


def test_the_hosting_for_one_gpu_fits_a_machine_of_one_gpu_and_runs_every_network_on_it():
    config = load([CONFIGS / "gen2det.yaml", CONFIGS / "hosting/gpu.yaml"], ["data.root=somewhere"])
    roles = "generate + inspect + judge + refine + keep"
    assert unplaced(config.hosting, nodes((5, 1)), roles.split(" + ")) == ""
    together = gangs(config.hosting, roles.split(" + "))[roles]
    assert sum(actor.gpus for actor in together) == pytest.approx(1.0)
    fitted = load([CONFIGS / "quickstart.yaml", CONFIGS / "hosting/gpu.yaml"])
    assert [without_gpu(one, nodes((5, 1))) for one in (config, fitted)] == ["", ""]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "inspect, train"),
        ({"generator": {"kind": "inpaint"}}, "generate, inspect, fit, train"),  # the crop painter learns
        ({"generator": {"kind": "inpaint", "painter": {"kind": "gligen"}}}, "generate, inspect, train"),
        ({"filters": [{"kind": "blank"}, {"kind": "alignment"}]}, "inspect, judge, train"),
        ({"hosting": {"inspect": {"num_gpus": 0.1}}}, "train"),
    ],
)
def test_roles_that_leave_gpus_alone_are_named(changes, named):
    config = {"name": "x", "data": {"format": "world"}, "generator": {"kind": "copy_paste"}} | changes
    config = LoopConfig.model_validate(config)
    message = without_gpu(config, nodes((4, 0), (4, 2)))
    assert message.startswith(f"hosting: {named} will run on the CPU, but the cluster has 2 GPUs;")
    assert without_gpu(config, nodes((4, 0))) == ""
