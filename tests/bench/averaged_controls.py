"""Average two controls: ``python tests/bench/averaged_controls.py NAME --weights FILE [--data FOLDER] [--seed 0]``

A second control starts from the same weights, those of the new head included, and sees the same real images in other
batches. Averaged with the first as the guard averages loop and control, it shows what averaging gives by itself.
"""

import argparse

import field
from upath import UPath

from actors.checkpoint import Checkpoint
from loop import stages
from loop.arms import Trainings
from loop.driver import import_real
from loop.evaluation.coco import evaluate
from loop.guard.blend import blend
from loop.progress import Reporter
from loop.reduce_images import reduce_images
from loop.training.worker import start_network

SHARES = (0.25, 0.5, 0.75)


def measure(given: argparse.Namespace) -> dict[str, float]:
    """AP on the validation images, in points. Controls that are trained already are not trained again."""
    ablation = field.EVIDENCE.load(given.name, given.root, given.data, [given.seed], given.weights)
    config, reporter = next(trial.config for trial in ablation.trials if trial.arm == "real"), Reporter()
    data = reduce_images(import_real(config), config, reporter)
    trainings = Trainings(config=config, data=data, reporter=reporter)
    place = UPath(config.root) / f"average-s{given.seed}"
    (first,) = trainings.controls(0)
    start = Checkpoint(str(place / "start.safetensors"))
    config.detector.save_checkpoint(start_network(trainings.mix(place, 0))[0], data.classes, start)
    second = trainings.arm(place, 0, seed=1, label="second control", start=start)
    found = {"first": first.seen, "second": second.seen}
    for share in SHARES:
        average = Checkpoint(str(place / f"average-{share}.safetensors"))
        blend(first.checkpoint, second.checkpoint, share, average)
        seen, _ = stages.detect(data.splits["val"], config.detector, average, config.hosting, lambda *_: None)
        found[f"{share} of the second"] = seen
    return {name: 100 * evaluate(data.splits["val"], one, data.classes).metrics["AP"] for name, one in found.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=field.QUESTIONS)
    parser.add_argument("--root", default="runs", help="storage root of the runs")
    parser.add_argument("--data", default="", help="folder of the data set")
    parser.add_argument("--weights", help="file of the weights that the detector starts from")
    parser.add_argument("--seed", type=int, default=0)
    print(", ".join(f"{name} {ap:.1f}" for name, ap in measure(parser.parse_args()).items()))


if __name__ == "__main__":
    main()
