"""Which trainings are the same to the runs of one root, and which are not."""

import pytest

from loop.arms import Trainings
from loop.config import LoopConfig
from loop.cross_fit import Fold
from loop.driver import import_real
from loop.progress import Reporter


@pytest.fixture
def trainings(easy_config, tmp_path):
    """Those of a run that is hosted like this."""

    def make(**hosting):
        config = LoopConfig.model_validate({**easy_config, "root": str(tmp_path), "hosting": hosting})
        return Trainings(config=config, data=import_real(config), reporter=Reporter())

    return make


def places(trainings):
    """Where its control and the detector of a fold are kept."""
    held_out = trainings.data.splits["train"][:2]
    return trainings.fingerprint(0), Fold.of(trainings, held_out).place.name


@pytest.mark.parametrize(
    "hosting",
    [{"engine": "ray"}, {"engine": "ray", "train": {"num_workers": 1, "num_gpus": 1}, "fit": {"num_workers": 4}}],
)
def test_one_worker_trains_the_control_and_the_folds_of_this_process(hosting, trainings):
    assert places(trainings(**hosting)) == places(trainings(engine="inline", train={"num_workers": 2}))


def test_controls_and_folds_of_more_workers_are_others(trainings):
    """Each normalises by its own part of a batch."""
    of_workers = [places(trainings(engine="ray", train={"num_workers": number})) for number in (1, 2, 4)]
    assert len({place for found in of_workers for place in found}) == 6
