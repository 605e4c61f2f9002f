"""Metrics of a finished round: both arms on the real validation images, and the candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.attributes import attributes
from actors.records import Detections, Difficulty, LabeledImage, Sample
from actors.seeds import derive_seed
from loop.arms import Arm
from loop.config import MiningConfig
from loop.context import Loop, RoundResult
from loop.evaluation.bootstrap import Gain, gain
from loop.evaluation.coco import Repeated, evaluate
from loop.evaluation.compare import compare_drawn
from loop.guard.choice import CONTROL, LOOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The metrics of a round."""

    loop: Repeated  # on the validation images
    control: Repeated  # likewise
    gain: Gain  # in AP, loop minus control
    drawn: Mapping[str, float]  # of the candidates: YOLO scores and fidelity, by name
    own: Repeated  # of the loop's own detectors, where a guard may have chosen others; else ``loop``
    own_gain: Gain  # likewise


def measure(loop: Loop, result: RoundResult, samples: Sequence[Sample]) -> Measured:
    """Evaluate both arms on the validation images, and compare ``samples``, all of the round, with the real images.

    If the guard kept the control, the gain is zero, and so is its interval: both arms are the same detectors.
    """
    truth, classes, number = loop.data.splits["val"], loop.data.classes, result.state.round
    seen = [arm.seen for arm in (*result.arms, *result.own, *result.controls)]
    hard = _hard_for_any(seen, truth, loop.config.mining)
    draws, seed = loop.config.evaluation.bootstrap_draws, derive_seed(loop.config.seed, "bootstrap", number)

    def repeated(arms: Sequence[Arm]) -> Repeated:
        return Repeated(each=tuple(evaluate(truth, arm.seen, classes, hard) for arm in arms))

    own, control = repeated(result.own), repeated(result.controls)
    trained, own_gain = own, gain(own.each, control.each, draws, seed)
    difference = own_gain
    if result.guard and result.guard.decision.share != LOOP:
        trained = repeated(result.arms)
        difference = gain(trained.each, control.each, draws, seed)
        if result.guard.decision.share == CONTROL:
            difference = difference.of_control()
    return Measured(
        loop=trained,
        control=control,
        gain=difference,
        drawn=compare_drawn(loop, number, samples),
        own=own,
        own_gain=own_gain,
    )


def _hard_for_any(
    arms: Sequence[Mapping[str, Detections]], truth: Sequence[LabeledImage], config: MiningConfig
) -> dict[str, NDArray[np.bool_]]:
    """Flags of boxes ``[n]`` that at least one arm gets wrong, by image id. Flags of one arm would favour the other."""
    return {image.id: np.any([_hard(image, seen[image.id], config) for seen in arms], axis=0) for image in truth}


def _hard(image: LabeledImage, seen: Detections, config: MiningConfig) -> NDArray[np.bool_]:
    """Flags of the boxes ``[n]`` that a detector gets wrong, by the rule of mining."""
    flags = np.zeros(len(image.annotation), np.bool_)
    for instance in attributes(image, seen, **config.attribute()):
        flags[instance.index] = instance.difficulty is Difficulty.HARD
    return flags
