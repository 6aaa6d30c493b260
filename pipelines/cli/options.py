"""The options of every command: a frozen class each, whose docstring is the command's help. And checks of values."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from objgan.errors import InputError
from pipelines import command_line
from pipelines.command_line import Location, option, repeated
from pipelines.data.prepare.source import FROM_CLASSES, NAMED
from pipelines.data.prepare.vector_sources import SOURCES
from pipelines.data.shards.manifest import SPLITS
from pipelines.models import CHAMPION
from pipelines.runtime import console

Place = TypeVar("Place")


def log_format(options: "Options") -> str:
    """Format of this program's lines."""
    wanted = os.environ.get(console.VARIABLE, "")
    return options.log_format or (wanted if wanted in console.FORMATS else console.FORMATS[0])


def count(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1)


def from_zero(text: str) -> int:
    """A whole number of at least 0."""
    return whole(text, 0)


def port_number(text: str) -> int:
    """A number of a TCP port, from 0 to 65535.

    Raises:
        argparse.ArgumentTypeError: another number, or none.
    """
    if (port := from_zero(text)) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is over 65535, the maximum")
    return port


def worker_range(text: str) -> tuple[int, int | None]:
    """N, or N-M: minimum and maximum."""
    least, dash, most = text.partition("-")
    return whole(least, 1), whole(most, 1) if dash else None


def whole(text: str, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        argparse.ArgumentTypeError: not a number, or under `least`.
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is under {least}, the minimum")
    return value


def split_name(text: str) -> str:
    """A named division, or the path of a JSON file of ids."""
    return text if text in NAMED else str(command_line.local_path(text))


def vector_source(text: str) -> str:
    """A named source of word vectors, or the folder of a spaCy pipeline."""
    return text if text in SOURCES else str(command_line.local_path(text))


def new_alias(text: str) -> str:
    """An alias that a command may give to a new version.

    Raises:
        argparse.ArgumentTypeError: it is `champion`.
    """
    if text == CHAMPION:
        raise argparse.ArgumentTypeError(f"only `promote` moves {CHAMPION}: choose another alias, then promote")
    return text


def reason(text: str) -> str:
    """A text that says something.

    Raises:
        argparse.ArgumentTypeError: it is blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("a blank reason: say why")
    return text


def file(group: str, help: str, metavar: str = "FILE") -> Path | None:
    """An option that takes a path on this machine."""
    return option(None, group, help, command_line.local_path, metavar=metavar)


def place(default: Place, group: str, help: str, **more: Any) -> Location | Place:
    """An option that takes a path or a URI."""
    more = {"type": command_line.location, "metavar": "LOCATION", **more}
    return option(cast("Location | Place", default), group, help, **more)


def out_folder(default: str) -> Path:
    """`--out` of a command."""
    help = "output folder, on this machine or a mount"
    return option(Path(default), "outputs", help, command_line.local_path, metavar="DIR")


_PREPARED = "output of `prepare`: folder or URI (s3://, gs://)"


class Options(command_line.OptionsClass):
    """What every command has."""

    log_format: str | None = option(
        None, "logging", f"json: one object a line (default: {console.VARIABLE}, else text)", choices=console.FORMATS
    )


class DataOptions(Options):
    """Prepared data."""

    data: Location = place(Path("data/prepared"), "inputs", _PREPARED)


class SourceOptions(Options):
    """A data set in COCO's format."""

    images: Sequence[Location] = repeated(
        "inputs",
        "COCO images: folder or URI (default: none, only boxes; `run` needs them)",
        command_line.location,
        metavar="LOCATION",
    )
    instances: Sequence[Location] = repeated(
        "inputs",
        "COCO instances, .json or .json.gz, also by URI (default: the embedded sample data); repeat --images, "
        "--instances and --captions in the same order for each further part of the data set, such as train2017 and "
        "val2017",
        command_line.location,
        metavar="FILE",
    )
    captions: Sequence[Location] = repeated(
        "inputs",
        "COCO captions, .json or .json.gz, also by URI (default: sample data)",
        command_line.location,
        metavar="FILE",
    )
    captions_from: str | None = option(
        None,
        "inputs",
        "classes: write captions from the objects of each image (default: those of --captions)",
        choices=(FROM_CLASSES,),
    )
    split: str = option(
        "hash",
        "inputs",
        "by hash (of the image id), coco (file name), or a JSON file of ids",
        split_name,
        metavar="HOW",
    )
    val2014: Path | None = file("inputs", "ids of COCO 2014's validation images (default: recognised by file name)")
    synonyms: Path | None = file("inputs", 'names of classes, {"class": ["word", ...]} (default: those for COCO)')


class SettingsOptions(Options):
    """The tree of settings: a recipe, a file over it, single settings over both."""

    recipe: str = option("tiny", "settings", "tiny, small, paper or fast", metavar="NAME")
    config: Path | None = file("settings", "YAML settings that override the recipe's (default: none)")
    assignments: Sequence[str] = repeated(
        "settings",
        "override one setting, for example images.training.generator_lr=1e-4; `python -m pipelines explain` lists "
        "them (default: none; may be repeated)",
        str,
        action=command_line.Assignments,
        flag="--set",
        metavar="NAME=VALUE",
    )


class DryRunOptions(SettingsOptions):
    """Settings of a command that can check everything without doing it."""

    dry_run: bool = option(False, "settings", "print the settings, run all checks of the command, and stop")


class RayOptions(Options):
    """Where Ray runs, and how long to wait for another driver."""

    address: str | None = option(None, "compute", "Ray cluster (default: Ray on this machine only)", metavar="URL")
    wait: float | None = option(
        None, "compute", "wait for another driver to release the run (default: do not wait)", float, metavar="SECONDS"
    )


class WorkersOptions(Options):
    """Training workers."""

    workers: tuple[int, int | None] | None = option(
        None, "compute", "training workers; 1-4: elastic (default: setting compute.workers)", worker_range, metavar="N"
    )


class HeldOptions(RayOptions):
    """The folder that one command at a time writes to."""

    out: Path = out_folder("runs")


class ModelOptions(Options):
    """A finished model."""

    model: Location | None = place(
        None,
        "inputs",
        "model: folder, URI (s3://, gs://), models:/NAME@ALIAS or runs:/ID/PATH of MLflow (default: "
        "models:/objgan@champion, or @challenger while there is no champion)",
        type=command_line.model,
    )


class JudgedOptions(Options):
    """What layouts and images are judged by."""

    prompts: Path | None = file(
        "inputs", "JSON of prompts with their numbers and relations: NSR-1K's, or your own (default: none)"
    )
    judges: Location | None = place(None, "inputs", "output of `judges` (default: none, image metrics are skipped)")


class RegistryOptions(Options):
    """A version in the MLflow registry."""

    name: str = option("objgan", "registry", "name of the registered model")
    alias: str = option("challenger", "registry", "alias of the new version; not champion", new_alias)


class StorageOptions(Options):
    """Where runs are stored."""

    storage: str = option(
        "runs", "outputs", "folder or URI that contains the runs", command_line.location_text, metavar="LOCATION"
    )


class SampleOptions(Options):
    """Draw the embedded sample data set in COCO's format.

    examples:
      python -m pipelines sample --out data/sample-coco --images 400
    """

    out: Path = out_folder("data/sample-coco")
    images: int = option(2000, "outputs", "number of images to draw", count, metavar="N")
    seed: int = option(0, "outputs", "random seed; the same seed gives the same bytes", from_zero, metavar="S")
    dry_run: bool = option(False, "outputs", "print what would be drawn, and stop")


class PrepareOptions(HeldOptions, DryRunOptions, SourceOptions):
    """Convert COCO images, instances and captions into Arrow shards. The same command resumes.

    examples:
      python -m pipelines prepare --images coco/images --instances coco/instances.json --captions coco/captions.json
      python -m pipelines prepare --recipe small --dry-run
    """

    vectors: str | None = option(
        None,
        "inputs",
        "word vectors: fitted (on the captions), wordllama, or the folder of a spaCy pipeline "
        "(default: wordllama for English captions if installed, else fitted)",
        vector_source,
        metavar="NAME_OR_DIR",
    )
    strict: bool = option(False, "inputs", "stop with exit code 2 if anything is rejected")
    retry_rejected: bool = option(False, "inputs", "convert rejected images again that were repaired since")
    out: Path = out_folder("data/prepared")
    format: str = option("arrow", "outputs", "training reads arrow, other tools parquet", choices=("arrow", "parquet"))


class VerifyOptions(Options):
    """Check prepared data completely and report every fault. Exit code 2: the data are damaged.

    examples:
      python -m pipelines verify data/prepared
    """

    data: Location = place(Path("data/prepared"), "inputs", _PREPARED, flag="LOCATION", nargs="?")
    processes: int | None = option(
        None, "compute", "files read in parallel (default: one per core)", count, metavar="N"
    )


class InspectOptions(Options):
    """Show the contents of prepared data: a table, and an HTML page with plots and samples.

    examples:
      python -m pipelines inspect data/prepared --samples 100 --out runs/inspect.html
      python -m pipelines inspect s3://bucket/coco --json
    """

    data: Location = place(Path("data/prepared"), "inputs", _PREPARED, flag="LOCATION", nargs="?")
    split: str | None = option(None, "inputs", "show one split only (default: all)", choices=SPLITS)
    out: Path = option(Path("runs/inspect.html"), "outputs", "HTML page", command_line.local_path, metavar="FILE")
    samples: int = option(48, "outputs", "number of images on the page", from_zero, metavar="N")
    seed: int = option(0, "outputs", "random seed for the choice of images", from_zero, metavar="S")
    json: bool = option(False, "output format", "print the numbers as JSON instead of the table")


class TrainOptions(RayOptions, WorkersOptions, DryRunOptions, StorageOptions, DataOptions):
    """Train one stage with Ray Train. The same command resumes an interrupted run.

    examples:
      python -m pipelines train boxes --data data/prepared --run first
      python -m pipelines train images --run first --workers 2 --set images.training.group=4
    """

    stage: str = option("", "inputs", "encoders, boxes, shapes, images, or judge", flag="STAGE")
    encoders: Location | None = place(None, "inputs", "checkpoint of stage encoders (default: the run's best one)")
    init_from: Location | None = place(
        None, "inputs", "checkpoint of the same stage whose weights start a new run (default: new weights)"
    )
    judges: Location | None = place(
        None, "inputs", "output of `judges`, which then measure the images of stage images, too (default: none)"
    )
    replay: Location | None = place(
        None, "inputs", "re-run a skipped training step and report where it became non-finite (default: train)"
    )
    run: str = option("default", "outputs", "name of the run, stored as ID/STAGE; the same ID resumes it", metavar="ID")
    profile: bool = option(
        False, "outputs", "run a few steps, write a trace, print the ten most expensive operations, and stop"
    )


class JudgesOptions(HeldOptions, WorkersOptions, DryRunOptions, DataOptions):
    """Train the judges of images for `evaluate`, on true images only. The same command resumes.

    examples:
      python -m pipelines judges --data data/prepared --out runs/judges
    """

    out: Path = out_folder("runs/judges")


class RunOptions(HeldOptions, WorkersOptions, DryRunOptions, RegistryOptions, JudgedOptions, SourceOptions):
    """Run all steps: prepare, train all stages, assemble, evaluate, register. The same command resumes.

    Word vectors are fitted on the captions; `prepare --vectors`, with the other steps by hand, takes others.

    examples:
      python -m pipelines run --images coco/images --instances coco/instances.json --captions coco/captions.json
      python -m pipelines run --recipe small --set images.training.batch_size=8 --dry-run
    """

    out: Path = out_folder("runs/run")


class DemoOptions(HeldOptions, WorkersOptions, DryRunOptions):
    """Run all steps on sample data and generate images for four captions. The same command resumes.

    Word vectors are fitted on the captions.

    examples:
      python -m pipelines demo --images 400 --out runs/demo
    """

    images: int = option(2000, "inputs", "number of images to draw and train on", count, metavar="N")
    out: Path = out_folder("runs/demo")


class MeasuredOptions(HeldOptions, JudgedOptions, DataOptions):
    """How finished models are measured."""

    protocol: str = option("test", "inputs", "images to measure: test, quick, validation, 1k or 30k", metavar="NAME")
    inception: Path | None = file("inputs", "Inception weights (default: none; FID, KID and IS are skipped)")
    detector: Path | None = file("inputs", "weights of a COCO detector (default: none; its SOA is skipped)")
    seed: int = option(0, "inputs", "random seed of the generated images", from_zero, metavar="S")
    workers: int = option(1, "compute", "processes that measure; the metrics do not depend on N", count, metavar="N")


class EvaluateOptions(MeasuredOptions, ModelOptions):
    """Measure a finished model on held-out data.

    examples:
      python -m pipelines evaluate --model models:/objgan@challenger --judges runs/judges
      python -m pipelines evaluate --protocol quick --out runs/quick
    """

    out: Path = out_folder("runs/evaluation")


class PromoteOptions(MeasuredOptions):
    """Make a registered version the champion if it is better than the present one. Exit code 3: it is not.

    examples:
      python -m pipelines promote --model models:/objgan@challenger --judges runs/judges
      python -m pipelines promote --rules rules.yaml --protocol quick
      python -m pipelines promote --rollback
    """

    model: Location = place(
        "models:/objgan@challenger",
        "inputs",
        "challenger: models:/NAME@ALIAS or models:/NAME/VERSION of MLflow",
        type=command_line.model,
    )
    rules: Path | None = file("inputs", "YAML of rules (default: no main metric worse, one better)")
    force: str | None = option(
        None,
        "registry",
        "why to promote although rules do not hold, or why --rollback (default: none)",
        reason,
        metavar="REASON",
    )
    rollback: bool = option(False, "registry", "compare nothing; give the alias back to the champion before this one")
    out: Path = out_folder("runs/promotion")


class GenerateOptions(RayOptions, ModelOptions):
    """Generate images for captions, each with its layout as JSON and a picture of all steps.

    With --captions, Ray workers write Parquet shards of images and layouts, and the same command resumes. With
    --captions FILE --format png, the lines of a text file become files of pictures as a single caption does.

    examples:
      python -m pipelines generate "two red kites above a boat on the sea" --n 4 --out runs/mine
      python -m pipelines generate --layout runs/mine/two-red-kites-above-a-boat-on-the-sea_0.json
      python -m pipelines generate --captions s3://bucket/captions.parquet --out s3://bucket/pictures
    """

    caption: str | None = option(None, "inputs", "one caption", flag="CAPTION", nargs="?")
    captions: Location | None = place(
        None,
        "inputs",
        "many captions, for shards: a .parquet, .csv, .jsonl or .txt file, a folder of files of one format, or a URI "
        "(default: none)",
    )
    caption_column: str | None = option(
        None, "inputs", "column of --captions with the captions (default: caption)", metavar="NAME"
    )
    layout_column: str | None = option(
        None, "inputs", "column with layouts as JSON (default: layout, if there is one)", metavar="NAME"
    )
    id_column: str | None = option(
        None, "inputs", "column with ids, which the output repeats (default: id, if there is one)", metavar="NAME"
    )
    layout: Path | None = file("inputs", "a .json of `generate`, edited or not (default: generate boxes and shapes)")
    judges: Location | None = place(
        None, "inputs", "output of `judges`: the contact sheet says what its judge of objects sees (default: none)"
    )
    workers: int | None = option(
        None, "compute", "processes for --captions (default: one for each GPU, else for each core)", count, metavar="N"
    )
    device: str | None = option(
        None, "compute", "of the processes (default: cuda if there is a GPU)", choices=("cpu", "cuda")
    )
    out: Location = place(
        Path("runs/generated"), "outputs", "output folder; with --captions also a URI", metavar="LOCATION"
    )
    n: int = option(1, "outputs", "images per caption", count, metavar="N")
    seed: int | None = option(
        None,
        "outputs",
        "random seed; the same seed gives the same bytes (default: that of the layout, else 0)",
        from_zero,
        metavar="S",
    )
    shard_rows: int | None = option(
        None, "outputs", "captions of a shard (default: as many as give 1,000 pictures)", count, metavar="N"
    )
    format: str | None = option(
        None,
        "outputs",
        "parquet: shards; png: files of pictures, for --captions of a local text file (default: parquet for "
        "--captions)",
        choices=("parquet", "png"),
    )
    dry_run: bool = option(
        False, "outputs", "check everything that --captions needs, print the number of shards, and stop"
    )

    @property
    def makes_shards(self) -> bool:
        """Whether `generate` writes shards, not files of pictures."""
        return self.captions is not None and self.format != "png"


class StudioOptions(ModelOptions):
    """Edit layouts and redraw pictures on a web page of this machine. Ctrl-C ends it.

    examples:
      python -m pipelines studio
      python -m pipelines studio --model runs/run/model --port 0
    """

    host: str = option(
        "127.0.0.1", "outputs", "address to listen at; with one that is not loopback, other machines can use the page"
    )
    port: int = option(8600, "outputs", "port to listen at; 0: a free one", port_number, metavar="PORT")


class RegisterOptions(RegistryOptions):
    """Register a finished model in MLflow: a model folder, or the stages of a run.

    examples:
      python -m pipelines register --run first --alias challenger
      python -m pipelines register --model runs/run/model --name objgan
    """

    model: Location | None = place(None, "inputs", "model (default: assemble it from --run)", type=command_line.model)
    run: str | None = option(None, "inputs", "run whose stages form the model (default: --model)", metavar="ID")


class RunsOptions(StorageOptions):
    """List runs, show one, remove leftovers of killed processes, or upload metrics that MLflow has not received.

    After `runs/` was moved, `relocate` corrects the places of files in its MLflow store.

    examples:
      python -m pipelines runs
      python -m pipelines runs status first/boxes
      python -m pipelines runs gc --dry-run
    """

    action: str = option(
        "list",
        "inputs",
        "list: a table; status: one run in detail; gc: remove leftovers; send: upload queued metrics to MLflow; "
        "relocate: correct the places of files in a moved MLflow store",
        flag="ACTION",
        nargs="?",
        choices=("list", "status", "gc", "send", "relocate"),
    )
    run: str | None = option(None, "inputs", "ID or ID/STAGE, for status and send", flag="RUN", nargs="?")
    dry_run: bool = option(False, "outputs", "print what gc would remove, or relocate change, and stop")
    json: bool = option(False, "output format", "print JSON (list and status)")


class CheckMlflowOptions(StorageOptions):
    """Check that MLflow is reachable, before work of many hours depends on it. Exit code 2: it is not.

    examples:
      MLFLOW_TRACKING_URI=http://mlflow:5000 python -m pipelines check-mlflow
    """

    run: str | None = option(
        None, "inputs", "a run that began before may continue without MLflow (default: none may)", metavar="ID"
    )


class ShowSettingsOptions(WorkersOptions, SettingsOptions):
    """Print the settings that a command uses with these options, as YAML.

    examples:
      python -m pipelines settings --recipe small --set boxes.hidden=128
    """


class ExplainOptions(Options):
    """Explain settings: type, bounds, default, description and the values of each recipe.

    examples:
      python -m pipelines explain images.training
    """

    name: str = option("", "inputs", "a setting or a section (default: all)", flag="NAME", nargs="?")
    markdown: bool = option(False, "output format", "print the page docs/settings.md")


def with_workers(assignments: Sequence[str], workers: Sequence[str]) -> list[str]:
    """The assignments of `--set` and of `--workers`.

    Raises:
        InputError: both set the number of workers.
    """
    given = {assignment.partition("=")[0] for assignment in assignments}
    if twice := given & {assignment.partition("=")[0] for assignment in workers}:
        raise InputError(f"--workers and --set {min(twice)} set the same setting: give one of them")
    return [*assignments, *workers]
