"""The command line. Heavy libraries load only when a command needs them: help and config errors come at once."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Find what a detector gets wrong, draw it anew, judge, retrain, measure - round after round.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at a data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Configs = Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="YAML files, later ones laid over earlier.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY.SUB=VALUE", help="Set one key; repeat for more.")]


@app.command()
def run(configs: Configs, overrides: Overrides = []) -> None:  # noqa: B006 - typer copies it
    """Run the loop; started again, it goes on where it stopped."""
    from loop.config_files import load

    config = load(configs, overrides)  # before anything heavy is imported: a mistake in it shows at once

    from loop.driver import run as run_loop
    from loop.progress import Reporter

    run_loop(config, Reporter())


@app.command()
def ablate(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG... ABLATION", help="YAML files of the run, and last the ablation's."),
    ],
    overrides: Overrides = [],  # noqa: B006 - typer copies it
) -> None:
    """Run the loop for every arm and seed of an ablation, and compare; started again, it goes on where it stopped.

    Exit status 1 where a run failed.
    """
    from loop.ablation.config import load_ablation

    ablation = load_ablation(configs, overrides)

    from loop.ablation.run import ablate as run_ablation
    from loop.progress import Reporter

    raise typer.Exit(1 if run_ablation(ablation, Reporter()).failed else 0)


@app.command()
def check(configs: Configs, overrides: Overrides = []) -> None:  # noqa: B006 - typer copies it
    """Show the resolved config, the plan, counts, and what it will take. Starts nothing."""
    from loop.check import describe
    from loop.config_files import load

    typer.echo(describe(load(configs, overrides)))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of a labelled data set.")],
    out: Annotated[Path, typer.Option(help="Where the config is written.")] = Path("detloop.yaml"),
) -> None:
    """Look at a folder of data, and write a commented config that runs on it."""
    from upath import UPath

    from loop.data.init_config import starter_config

    if out.exists():
        raise FileExistsError(f"{out} exists already; name another file with --out")
    out.write_text(starter_config(UPath(folder), str(out)))
    typer.echo(f"{out} written. Next: detloop check {out}, then detloop run {out}")


@app.command()
def export(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/quickstart.")],
    out: Annotated[str, typer.Option(help="Folder to write, new or empty.")],
    layout: Annotated[str, typer.Option("--format", help="coco, yolo or voc.")] = "coco",
) -> None:
    """Write a run's real and synthetic images as one data set, with lineage and a data set card."""
    from upath import UPath

    from loop.driver import export_run

    typer.echo(f"written, and described in {export_run(UPath(folder), layout, UPath(out))}")


@app.command()
def ui(
    root: Annotated[str, typer.Argument(help="Storage root of the runs, or the URI of an MLflow server.")] = "runs",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Start the MLflow UI on the runs' store, for this machine alone."""
    from loop.tracking import local_store, ui_command

    is_server = root.startswith(("http://", "https://"))
    command = ui_command(root if is_server else local_store(root).uri, port)
    os.execv(command[0], command)  # noqa: S606 - our own command, no shell


@data_app.command()
def validate(configs: Configs, overrides: Overrides = []) -> None:  # noqa: B006 - typer copies it
    """Import the data of a config, decode every picture, and report what is dropped and why.

    Exit status 1 where a picture cannot be used.
    """
    from loop.config_files import load
    from loop.data.validate import validate_images
    from loop.driver import import_real

    data = import_real(load(configs, overrides))
    typer.echo(str(data.report))
    broken = [finding for images in data.splits.values() for finding in validate_images(images)]
    typer.echo("\n".join([f"Undecodable pictures: {len(broken)}", *(f"  {one.file}: {one.detail}" for one in broken)]))
    raise typer.Exit(1 if broken or any(one.what == "image" for one in data.report.dropped) else 0)


def main() -> None:
    """Run the command line; what a user can mend ends in one message and exit status 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("DETLOOP_DEBUG"):
            raise
        typer.echo(f"detloop: {error}\n(DETLOOP_DEBUG=1 shows where it was raised)", err=True)
        sys.exit(2)
