"""The figures of a finished round: both arms on the real validation images, and what was drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.attributes import attributes
from actors.records import Detections, Difficulty, LabeledImage, Sample
from actors.seeds import derive_seed
from loop.config import MiningConfig
from loop.context import Loop, RoundResult
from loop.evaluation.bootstrap import Gain, gain
from loop.evaluation.coco import Evaluation, evaluate
from loop.evaluation.compare import compare_drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The figures of a round."""

    loop: Evaluation  # on the validation images
    control: Evaluation  # likewise
    gain: Gain  # in AP, loop less control
    drawn: Mapping[str, float]  # of what was drawn: YOLO scores and fidelity, by name


def measure(loop: Loop, result: RoundResult, samples: Sequence[Sample]) -> Measured:
    """Hold both arms against the validation images, and ``samples``, all of the round's, against the real ones."""
    truth, classes, number = loop.data.splits["val"], loop.data.classes, result.state.round
    hard = _hard_for_any([result.arm.seen, result.control.seen], truth, loop.config.mining)
    trained = evaluate(truth, result.arm.seen, classes, hard)
    control = evaluate(truth, result.control.seen, classes, hard)
    draws, seed = loop.config.evaluation.bootstrap_draws, derive_seed(loop.config.seed, "bootstrap", number)
    return Measured(
        loop=trained,
        control=control,
        gain=gain(trained, control, draws, seed),
        drawn=compare_drawn(loop, number, samples),
    )


def _hard_for_any(
    arms: Sequence[Mapping[str, Detections]], truth: Sequence[LabeledImage], config: MiningConfig
) -> dict[str, NDArray[np.bool_]]:
    """For each image, the boxes ``[n]`` that at least one arm gets wrong: flags of one alone would favour the other."""
    return {image.id: np.any([_hard(image, seen[image.id], config) for seen in arms], axis=0) for image in truth}


def _hard(image: LabeledImage, seen: Detections, config: MiningConfig) -> NDArray[np.bool_]:
    """The boxes ``[n]`` that a detector gets wrong, by the rule of mining."""
    flags = np.zeros(len(image.annotation), np.bool_)
    for instance in attributes(image, seen, **config.attribute()):
        flags[instance.index] = instance.difficulty is Difficulty.HARD
    return flags
