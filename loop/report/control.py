"""The report of the control, before the first round: what it started from, and whether it finds anything."""

from collections.abc import Mapping

from loop.arms import Arm
from loop.config import LoopConfig
from loop.context import Loop
from loop.evaluation.coco import evaluate
from loop.report.summary import points

FINDS_NOTHING = 0.01
"""AP50 below which a detector counts as untrained."""

WHY_FRESH: Mapping[str, str] = {
    "missing": "not in the file",
    "other_shape": "of another shape, as the head depends on the classes",
    "other_classes": "of the head, for other classes",
    "not_of_backbone": "outside the backbone",
}
"""Each ``Misfit`` in words."""


def report_control(loop: Loop, control: Arm) -> None:
    """Say what the control started from, and warn if it finds nothing on the validation images."""
    if taken := describe_weights(loop):
        loop.reporter.say(f"weights: {taken}")
    ap50 = evaluate(loop.data.splits["val"], control.seen, loop.data.classes).metrics["AP50"]
    if loop.config.rounds and ap50 < FINDS_NOTHING:
        loop.reporter.warn(finds_nothing(loop.config, ap50))


def finds_nothing(config: LoopConfig, ap50: float) -> str:
    """What follows from a control that finds nothing on the validation images, and what to do."""
    follows = "mining cannot tell easy boxes from hard ones"
    if any(one.kind == "agreement" for one in config.filters):
        follows += ", and the agreement filter rejects whatever it does not find"
    remedy = "raise training.steps"
    if config.training.start != "weights":
        remedy += ", or start from weights (detector.weights and training.start: weights)"
    return (
        f"the control finds nothing yet (AP50 {points(ap50)} after {config.training.steps} steps): {follows}; {remedy}"
    )


def control_weights(loop: Loop) -> Mapping[str, int]:
    """The number of tensors of the control by outcome, see ``LoadedWeights.counts``; empty without ``weights``."""
    return loop.trainings.control(0).trained.weights


def describe_weights(loop: Loop) -> str:
    """``control_weights`` in words; empty without weights."""
    if not (counts := control_weights(loop)):
        return ""
    fresh = {reason: number for reason, number in counts.items() if reason != "loaded"}
    reasons = "; ".join(f"{number} {WHY_FRESH[reason]}" for reason, number in fresh.items())
    rest = f"{sum(fresh.values())} start fresh ({reasons})" if fresh else "none starts fresh"
    source = loop.config.detector.weights_source
    return f"{counts['loaded']} of {sum(counts.values())} tensors from {source}, {rest}"
