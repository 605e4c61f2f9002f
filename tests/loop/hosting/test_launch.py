"""What goes wrong in an actor or a worker, as the driver tells it: in one sentence."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from loop.hosting.config import HostingConfig
from loop.hosting.engine import in_an_actor
from loop.hosting.launch import check_parts, launch
from loop.hosting.records import ActorFailedError

RAY = HostingConfig(engine="ray", fit={"num_workers": 1, "max_failures": 0})


@pytest.fixture(autouse=True, scope="module")
def _by_value():
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Job:
    """A training of nothing."""

    storage: str
    name: str = "of-nothing"

    def fingerprint(self) -> str:
        return "0"

    def located(self, place: Callable[[str], str]) -> "Job":
        return Job(place(self.storage))


def fails(*_):
    raise RuntimeError("the loss is not finite\nwith details")


def is_invalid(*_):
    raise FileNotFoundError("no such checkpoint")


def dies(*_):
    os._exit(1)


@pytest.mark.usefixtures("ray_session")
def test_a_training_whose_workers_fail_is_one_sentence(tmp_path):
    with pytest.raises(ActorFailedError) as raised:
        launch(fails, Job(str(tmp_path)), RAY.fit, RAY, None)
    assert str(raised.value).startswith("training of-nothing failed more than 0 times (max_failures of its role")
    assert str(raised.value).endswith("last: RuntimeError: the loss is not finite")


@pytest.mark.usefixtures("ray_session")
def test_an_actor_that_fails_is_one_sentence():
    with pytest.raises(ActorFailedError, match=r"^an actor failed: RuntimeError: the loss is not finite$"):
        in_an_actor(fails, RAY)
    with pytest.raises(FileNotFoundError, match=r"^no such checkpoint$"):
        in_an_actor(is_invalid, RAY)
    with pytest.raises(ActorFailedError, match=r"^an actor failed: \w+: .*$"):
        in_an_actor(dies, RAY)


@pytest.mark.parametrize(("batch_size", "num_workers", "accumulate"), [(8, 2, 1), (8, 2, 4), (6, 3, 2)])
def test_equal_parts_are_accepted(batch_size, num_workers, accumulate):
    check_parts("training.batch_size", batch_size, "train", num_workers, accumulate)


def test_unequal_parts_are_refused():
    with pytest.raises(ValueError, match=r"training.batch_size \(8\), hosting.train.num_workers \(3\); make the first"):
        check_parts("training.batch_size", 8, "train", 3)
    with pytest.raises(ValueError, match=r"hosting.fit.num_workers \(2\) times fit.accumulate \(3\)"):
        check_parts("the fit's batch size", 8, "fit", 2, 3)
