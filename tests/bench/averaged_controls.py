"""Average two controls: ``python tests/bench/averaged_controls.py NAME --weights FILE [--data FOLDER] [--seed 0]``

The controls of a first run (see ``field.py``) are trained with two training seeds on the same real images, and their
weights are averaged as the guard averages those of loop and control. It shows what averaging gives by itself.
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


def measure(given: argparse.Namespace) -> dict[str, float]:
    """AP on the validation images, in points. Controls that are trained already are not trained again."""
    ablation = field.EVIDENCE.load(given.name, given.root, given.data, [given.seed], given.weights)
    config = next(trial.config for trial in ablation.trials if trial.arm == "real")
    two = config.evaluation.model_copy(update={"seeds": 2})
    config, reporter = config.model_copy(update={"evaluation": two}), Reporter()
    data = reduce_images(import_real(config), config, reporter)
    first, second = Trainings(config=config, data=data, reporter=reporter).controls(0)
    average = Checkpoint(str(UPath(config.root) / f"average-s{given.seed}.safetensors"))
    blend(first.checkpoint, second.checkpoint, 0.5, average)
    seen, _ = stages.detect(data.splits["val"], config.detector, average, config.hosting, lambda *_: None)
    found = {"first": first.seen, "second": second.seen, "average": seen}
    return {name: 100 * evaluate(data.splits["val"], one, data.classes).metrics["AP"] for name, one in found.items()}


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=field.QUESTIONS)
    parser.add_argument("--root", default="runs", help="storage root of the runs")
    parser.add_argument("--data", default="", help="folder of the data set")
    parser.add_argument("--weights", help="file of the weights that the detector starts from")
    parser.add_argument("--seed", type=int, default=0)
    print(", ".join(f"{name} {ap:.1f}" for name, ap in measure(parser.parse_args()).items()))


if __name__ == "__main__":
    main()
