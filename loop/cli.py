"""The command line. Commands import heavy libraries when they run, so that help and config errors are fast."""

import os
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from loop.endings import explain, resumable
from loop.use import commands

app = typer.Typer(
    help="Find what a detector gets wrong, generate variants of it, judge them, retrain and measure, in rounds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Inspect a data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Configs = Annotated[
    list[Path], typer.Argument(metavar="CONFIG...", help="YAML files. A later file overrides the earlier ones.")
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY.SUB=VALUE",
        help="Override one key. Can be repeated.",
        default_factory=list,
        show_default=False,
    ),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"detloop {version('detloop')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Parse the options before a command."""


@app.command()
def run(configs: Configs, overrides: Overrides) -> None:
    """Run the loop. Running the same command again continues an interrupted run.

    Exit status: 0 when all rounds are finished; 2 when the config, the data or the hosting cannot be used, the
    MLflow server does not answer or the disk is full; 130 or 143 when it was stopped by Ctrl-C or SIGTERM.
    """
    from loop.config_files import load

    config = load(configs, overrides)  # before heavy imports, so that config errors are fast

    with resumable():
        from loop.driver import run as run_loop
        from loop.progress import Reporter

        run_loop(config, Reporter())


@app.command()
def ablate(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG... ABLATION", help="YAML files of the run, followed by that of the ablation."),
    ],
    overrides: Overrides,
) -> None:
    """Run the loop for every arm and seed of an ablation and compare the arms.

    Running the same command again continues an interrupted ablation.

    Exit status: 0 when every run is finished; 1 when a run failed; 2 when the config or the data cannot be used;
    130 or 143 when it was stopped by Ctrl-C or SIGTERM.
    """
    from loop.ablation.config import load_ablation

    ablation = load_ablation(configs, overrides)

    with resumable():
        from loop.ablation.run import ablate as run_ablation
        from loop.progress import Reporter

        raise typer.Exit(1 if run_ablation(ablation, Reporter()).failed else 0)


@app.command()
def check(configs: Configs, overrides: Overrides) -> None:
    """Print the plan of a run: images, trainings, disk, time, missing weights, and the resolved config. Starts nothing.

    Exit status: 0 when the config and the data can be used; 2 when they cannot.
    """
    from loop.check import describe, missing
    from loop.config_files import load

    config = load(configs, overrides)
    typer.echo(describe(config))
    if gone := "; ".join(missing(config)):
        typer.echo(f"detloop run will refuse this config: missing {gone}", err=True)


@app.command()
def init(  # noqa: PLR0913 - each is an option of the command
    folder: Annotated[Path, typer.Argument(help="Folder of a labelled data set.")],
    *,
    out: Annotated[Path, typer.Option(help="Config file to write. It must not exist.")] = Path("detloop.yaml"),
    detector: Annotated[
        Literal["ultralytics", "torchvision"], typer.Option(help="Family of the detector; licences differ.")
    ] = "ultralytics",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weights to start from: a release of the family, a file, or none. "
            "Default: yolo11n.pt for ultralytics, an ImageNet backbone for torchvision, if they can be had.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[Literal["auto", "coco", "yolo", "voc", "cvat"], typer.Option("--format")] = "auto",
    train: Annotated[str | None, typer.Option(help="Name of the training split.", show_default=False)] = None,
    val: Annotated[str | None, typer.Option(help="Name of the validation split.", show_default=False)] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Class names by id, for YOLO labels without names.")
    ] = None,
    clean: Annotated[
        str | None, typer.Option(help="Pictures without any object, or none. Default: the folder clean, if it exists.")
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read files behind links out of the folder.")
    ] = False,
) -> None:
    """Inspect a folder of labelled images, report what is found and left out, and write a commented config for it.

    Exit status: 0 when the config is written; 2 when the folder holds no data of a known format, there are no such
    weights, or the file exists.
    """
    from upath import UPath

    from actors.detectors import FAMILIES
    from loop.config_files import load
    from loop.data.advice import advise
    from loop.data.init_config import render
    from loop.data.survey import describe

    if out.exists():
        raise FileExistsError(f"{out} exists already; name another file with --out")
    names = classes and [name.strip() for name in classes.split(",")]
    keys = {"format": layout, "train": train, "val": val, "classes": names, "follow_links": follow_links}
    found = describe(UPath(folder), keys={key: value for key, value in keys.items() if value}, clean=clean)
    typer.echo(str(found))
    starter = FAMILIES[detector].starter(weights)
    out.write_text(render(found, str(out), starter), encoding="utf-8")
    typer.echo(f"Licence: {FAMILIES[detector].licence}.")
    if starter.note:
        typer.echo(f"Note: {starter.note}.")
    for note in advise(found.dataset, load([out], []).detector.image_size_px):
        typer.echo(f"Note: {note}.")
    typer.echo(f"{out} written. Next: detloop check {out}, then detloop run {out}")


@app.command()
def export(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/quickstart.")],
    out: Annotated[str, typer.Option(help="Folder to write. It must be new or empty.")],
    layout: Annotated[str, typer.Option("--format", help="coco, yolo or voc.")] = "coco",
) -> None:
    """Write the real and synthetic images of a run as one data set, with lineage and a data set card.

    Exit status: 0 when the data set is written; 2 when there is no such run or the folder is not empty.
    """
    from upath import UPath

    from loop.driver import export_run

    typer.echo(f"Data set written. Its card: {export_run(UPath(folder), layout, UPath(out))}")


@app.command()
def labels(
    configs: Configs,
    overrides: Overrides,
    *,
    out: Annotated[
        str | None, typer.Option(help="Folder to write. Default: labels/NAME below the root.", show_default=False)
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Lowest score of the proposals that corrected.json takes over.")
    ] = 0.8,
    apply: Annotated[
        list[str],
        typer.Option(
            metavar="KIND",
            help="Kind of question whose proposals corrected.json takes over: box (default), missing, class, doubled. "
            "Can be repeated.",
            default_factory=lambda: ["box"],
            show_default=False,
        ),
    ],
) -> None:
    """Find labels of the training images that look wrong, and write corrected ones beside them.

    Detectors are trained on folds of the images, and each looks at the images that it was not trained on. The files of
    the data set are not changed. Running the same command again continues an interrupted check.

    Exit status: 0 when the labels are checked; 2 when the config, the data or the hosting cannot be used, or the folder
    holds anything else; 130 or 143 when it was stopped by Ctrl-C or SIGTERM.
    """
    from loop.config_files import load

    config = load(configs, overrides)

    with resumable():
        from upath import UPath

        from loop.labels.run import Choice, check_labels
        from loop.progress import Reporter

        choice, place = Choice(confidence=confidence, kinds=apply), None if out is None else UPath(out)
        checked = check_labels(config, Reporter(), place, choice)
    typer.echo(f"\n{checked.text}")
    if any(row["applied"] for row in checked.rows):
        corrected = checked.out / "corrected.json"
        ours = {"name": f"{config.name}-corrected", "rounds": "0", "data.labels": str(corrected)}
        kept = [one for one in overrides if one.partition("=")[0].strip() not in ours]
        keys = [*kept, *(f"{key}={value}" for key, value in ours.items())]
        command = ["detloop", "run", *map(str, configs), *(word for key in keys for word in ("--set", key))]
        typer.echo(f"train on it: {shlex.join(command)}")


@app.command()
def ui(
    root: Annotated[str, typer.Argument(help="Storage root of the runs, or the URI of MLflow's database.")] = "runs",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Serve the MLflow UI for the runs below a storage root, on this machine only.

    Exit status: that of the MLflow server; 2 when no run was tracked in ROOT, or ROOT is a server, which has a UI of
    its own.
    """
    from loop.tracking.store import ui_command

    command = ui_command(root, port)
    os.execv(command[0], command)  # noqa: S606 - our own command, no shell


@data_app.command()
def validate(configs: Configs, overrides: Overrides) -> None:
    """Import the data of a config, decode every image, and report what is dropped and why.

    Exit status: 0 when every image and box is used as it is; 1 when one is left out or changed; 2 when the config or
    the data set cannot be used.
    """
    from loop.config_files import load
    from loop.data.validate import validate_images
    from loop.driver import import_real

    data = import_real(load(configs, overrides))
    typer.echo(str(data.report))
    images = [image for members in (*data.splits.values(), data.clean) for image in members]
    broken = validate_images(images)
    typer.echo("\n".join([f"Undecodable pictures: {len(broken)}", *(f"  {one.file}: {one.detail}" for one in broken)]))
    raise typer.Exit(1 if broken or data.report.findings else 0)


app.command()(commands.export_model)
app.command()(commands.predict)
app.command()(commands.evaluate)


def main() -> None:
    """Run the command line. An error that a user can mend prints one message and ends with exit status 2."""
    try:
        app()
    except Exception as error:
        if os.environ.get("DETLOOP_DEBUG") or (message := explain(error)) is None:
            raise
        typer.echo(f"detloop: {message}\n(DETLOOP_DEBUG=1 shows where it was raised)", err=True)
        sys.exit(2)
