"""The commands that use the detector of a run."""

from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/quickstart.")]
Round = Annotated[
    int | None,
    typer.Option("--round", help="Round of the detector; by default, the one with the best validation AP."),
]
Control = Annotated[bool, typer.Option("--control", help="Use the control, trained on the real images alone.")]


def export_model(
    folder: Run,
    out: Annotated[str, typer.Option(help="File to write. It must not exist.")],
    fmt: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="ultralytics: pt (default), onnx or torchscript; torchvision: torchscript (default), pth or onnx.",
            show_default=False,
        ),
    ] = None,
    number: Round = None,
    control: Control = False,
) -> None:
    """Write the detector of a run as a file of other programs.

    Exit status: 0 when the file is written; 2 when there is no such run, the file exists, or the detector's family
    cannot be exported to the format.
    """
    from upath import UPath

    from loop.use.export import export_model as export_chosen

    name = export_chosen(UPath(folder), fmt, UPath(out), number, control=control)
    typer.echo(f"{out} written: {name}")


def predict(  # noqa: PLR0913, PLR0917 - each is an option of the command
    folder: Run,
    places: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Pictures: files, folders or patterns such as 'a/*.jpg'.")
    ],
    out: Annotated[str, typer.Option(help="Folder to write. It must be new or empty.")],
    score: Annotated[float, typer.Option(help="Lowest score of a detection.")] = 0.25,
    layout: Annotated[str, typer.Option("--format", help="coco or yolo.")] = "coco",
    draw: Annotated[bool, typer.Option("--draw", help="Also write the pictures with their boxes.")] = False,
    number: Round = None,
    control: Control = False,
) -> None:
    """Detect objects in pictures with the detector of a run.

    Exit status: 0 when every picture is done; 1 when one cannot be read and the others are done; 2 when there is no
    such run or picture, or the folder is not empty.
    """
    from upath import UPath

    from loop.progress import Reporter
    from loop.use.chosen import choose
    from loop.use.predict import find_pictures
    from loop.use.results import Results, predict_into

    chosen, reporter = choose(UPath(folder), number), Reporter()
    results = Results(out=UPath(out), layout=layout, classes=chosen.classes(), draw=draw)
    unreadable = predict_into(results, chosen, find_pictures(places), score, reporter, control=control)
    raise typer.Exit(1 if unreadable else 0)


def evaluate(
    folder: Run,
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    data: Annotated[
        str | None, typer.Option(help="Config or folder of other data with the same classes; default: the run's own.")
    ] = None,
    number: Round = None,
) -> None:
    """Measure the detector of a run and its control on the test images, and record the measurement.

    Exit status: 0 when it is measured; 2 when there is no such run or split, its images or classes cannot be used, or
    all of them are the run's training images.
    """
    from upath import UPath

    from loop.progress import Reporter
    from loop.use.chosen import choose
    from loop.use.evaluate import measure_split

    chosen, reporter = choose(UPath(folder), number), Reporter()
    measured = measure_split(chosen, split, reporter, data)
    reporter.say(f"\n{chosen.why}\n{measured}")
    for warning in measured.warnings():
        reporter.warn(warning)
