"""The command line: thin, one function a verb. What a verb does stands in the folder that it names."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from dolmen import __version__
from dolmen.errors import ConfigError, DolmenError
from dolmen.sheets import Sheet, record, wide_console
from dolmen.telemetry import LogFormat, set_up_logs

__all__ = ["app", "main"]

# Verbs import what they need when they run: `dolmen --help` should not wait for torch.

app = typer.Typer(
    name="dolmen",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Real-time recommendations: embeddings that never collide and are never stale.\n\n"
        "Events go into a durable log, a joiner makes examples of them, a trainer learns each within a second, and the"
        " server answers with what was just learned.\n\n"
        "[bold]Start here:[/bold]  dolmen demo    the whole loop on real events, with a page to watch it\n\n"
        "[bold]Then:[/bold]        dolmen up --config dolmen.toml    the same loop on your own events"
    ),
    epilog="`dolmen VERB --help` explains a verb. Documents: docs/README.md in the source.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets by name: list them, read about one, fetch one.")
app.add_typer(data_app, name="data", rich_help_panel="Look")

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration file (see docs/reference/configuration.md).")
]
LogForm = Annotated[LogFormat, typer.Option("--log-format", help="How log lines look.")]

_out = wide_console()
_errors = Console(stderr=True)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        _out.print(f"dolmen {__version__}")
        raise typer.Exit


@app.command(rich_help_panel="Run the loop")
def demo(
    context: typer.Context,
    data: Annotated[
        str, typer.Option(help="Which data set to replay: `dolmen data list` names them.")
    ] = "movielens-100k",
    ranker: Annotated[
        str | None, typer.Option(help="Which model ranks, such as din or sdim; deepfm if left out.")
    ] = None,
    events: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many items were shown; all if left out.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1, help="Items shown and actions a second; headless runs default to 1020, others to 300."),
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="No page to watch: replay, report, exit.")] = False,
    report: Annotated[Path | None, typer.Option(help="Where the JSON report goes.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="The folder of everything that is written; ./state, or a temporary one when headless."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete that folder's old demo first, rather than going on from it.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8080,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Run the whole loop on real events, replayed through the public HTTP API, and watch it learn.

    Ctrl-C stops everything cleanly; the next start goes on from there.
    """
    from dolmen.demo import DemoOptions, run_demo

    if headless and state is None:
        _refuse(context, "a headless run without --state begins in a new folder; name one, or leave this out", "fresh")
    options = DemoOptions(
        data=data,
        ranker=ranker,
        event_count=events,
        rate=rate,
        headless=headless,
        report_path=report,
        state=state if state is not None else Path("state"),
        fresh=fresh,
        port=port,
        seed=seed,
    )
    raise typer.Exit(run_demo(options, temporary=headless and state is None))


@app.command(rich_help_panel="Run the loop")
def up(config: ConfigPath = Path("dolmen.toml"), log_format: LogForm = LogFormat.AUTO) -> None:
    """Run all stages as supervised processes: one that dies is restarted, and the others go on."""
    from dolmen.cluster import run_up

    set_up_logs("up", form=log_format)
    run_up(config, log_format=log_format)


@app.command(rich_help_panel="Run the loop")
def check(config: ConfigPath = Path("dolmen.toml")) -> None:
    """Say what is wrong with a configuration; start nothing.

    The model is built with its options, and tried: it must answer and learn a few made-up examples.
    """
    from dolmen.cluster import Config

    Config.from_toml(config, with_model=True)
    _out.print(f"{config}: can be used", soft_wrap=True)


@app.command(rich_help_panel="Run one stage")
def serve(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The configuration file.")] = None,
    snapshot: Annotated[Path | None, typer.Option(help="Serve this snapshot alone, with no stream behind it.")] = None,
    data: Annotated[str | None, typer.Option(help="With --snapshot: the data set whose items are served.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --snapshot: the port on 127.0.0.1.")] = 8080,
    log_format: LogForm = LogFormat.AUTO,
) -> None:
    """Answer requests: follow the trainer's deltas, log impressions and actions, show the console."""
    from dolmen import console
    from dolmen.cluster import Config, snapshot_config, stages

    set_up_logs("serve", form=log_format)
    if config is not None and snapshot is None:
        _refuse(context, "belongs to --snapshot; with --config it stands in the file", "data", "port")
        stages.serve(Config.from_toml(config), extend=console.mount)
    elif snapshot is not None and config is None:
        stages.serve(snapshot_config(snapshot, data=data, port=port), extend=console.mount, port_name="--port")
    else:
        raise ConfigError("name either --config dolmen.toml or --snapshot FOLDER")


@app.command(rich_help_panel="Run one stage")
def join(config: ConfigPath = Path("dolmen.toml"), log_format: LogForm = LogFormat.AUTO) -> None:
    """Join impressions with actions: positives leave at once, negatives when their window closes."""
    from dolmen.cluster import Config, stages

    set_up_logs("join", form=log_format)
    stages.join(Config.from_toml(config))


@app.command(rich_help_panel="Run one stage")
def train(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", help="Learn from the stream of --config until stopped.")] = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The configuration file.")] = None,
    data: Annotated[str | None, typer.Option(help="Learn from this data set instead, in batch.")] = None,
    model: Annotated[str, typer.Option(help="In batch: which model; `dolmen models` lists them.")] = "joint",
    epochs: Annotated[int, typer.Option(min=1, help="In batch: passes over the training part.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="In batch: examples a step.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="In batch: of everything random.")] = 0,
    out: Annotated[Path, typer.Option(help="In batch: the folder that gets the snapshot.")] = Path("snapshots"),
    negatives: Annotated[
        int, typer.Option(min=0, help="In batch: random items beside each acted on, for data of actions alone.")
    ] = 0,
    log_format: LogForm = LogFormat.AUTO,
) -> None:
    """Learn: from the stream (--follow --config FILE), or in batch from a data set (--data NAME)."""
    from dolmen.cluster import Config, stages, train_in_batch

    if follow:
        in_batch = ("data", "model", "epochs", "batch_size", "seed", "out", "negatives")
        _refuse(context, "is for learning in batch; --follow learns as the file of --config says", *in_batch)
        set_up_logs("train", form=log_format)
        stages.train(Config.from_toml(config if config is not None else Path("dolmen.toml"), with_model=True))
        return
    if data is None:
        raise ConfigError(
            "name a data set, such as --data movielens-100k, or follow a stream with --follow --config FILE"
        )
    _refuse(context, "is for --follow; --data learns in batch", "config", "log_format")
    tested = train_in_batch(
        data, model=model, epochs=epochs, batch_size=batch_size, seed=seed, out=out, negatives=negatives
    )
    told = f"loss {tested.loss:.4f}"
    if not math.isnan(tested.auc):
        told = f"AUC {tested.auc:.4f}, log loss {tested.log_loss:.4f}"
    _out.print(f"test: {told} over {tested.example_count:,} later examples")
    if tested.refused_count:
        _out.print(
            f"refused: {tested.refused_count:,} of {tested.step_count:,} steps: loss or gradients were not finite",
            style="yellow",
        )
    _out.print(f"snapshot: {tested.path}\nserve it: dolmen serve --snapshot {out} --data {data}", soft_wrap=True)


@app.command(rich_help_panel="Look")
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A snapshot, a folder of snapshots, a folder of tables, a log or a state folder.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Plain JSON.")] = False,
    top: Annotated[int, typer.Option(min=0, max=1000, help="How many of the most seen ids to name.")] = 5,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="The file that says how the log is kept; as by default if left out."),
    ] = None,
) -> None:
    """Show what is in a snapshot, a table or a log, and which reader keeps the log from forgetting."""
    from dolmen.cluster import Config, inspect_path

    retention = Config.from_toml(config).retention if config is not None else None
    found = inspect_path(path, top_count=top, retention=retention)
    if as_json:
        sys.stdout.write(json.dumps(found.values, indent=2, default=str) + "\n")
        return
    for table in found.tables():
        _out.print(table)


@app.command(rich_help_panel="Look")
def models() -> None:
    """List the models: what each does and reads, who wrote it up, and what was measured."""
    from dolmen.models import entry, names

    sheet = Sheet("name", "job", "what it is", "can", "reads", "source", "measured", title="models")
    for one in map(entry, names()):
        can = ", ".join(sorted(one.abilities))
        sheet.add_row(one.name, one.job, one.title, can, one.reads, one.source, one.measured)
    _out.print(sheet)


@app.command(rich_help_panel="Look")
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which studies; with --quick none means all.", show_default=False)
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List the studies and what became of them; run none.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="The form of a minute that guards against faults.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each arm, instead of the study's own.")] = None,
    device: Annotated[str, typer.Option(help="Where the models run, as torch calls it.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="The folder of reports.", show_default="docs/results/studies")
    ] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Run nothing: report the cells that are finished.")] = False,
    take_over: Annotated[
        str | None,
        typer.Option(metavar="WHY", help="Believe kept cells of other code, too; the report will say why."),
    ] = None,
    cells_from: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="Keep the cells of a report (.json) first, to go on from there."),
    ] = None,
) -> None:
    """Put papers to the test: run a study's arms on its data, judge its claims, write the report.

    Finished cells are kept: a run that was cut off goes on where it was.
    """
    from dolmen import studies

    if list_all:
        _out.print(studies.list_studies(out))
        return
    options = studies.Options(
        studies=tuple(names or ()),
        quick=quick,
        seed_count=seeds,
        device=device,
        out=out,
        only_stored=stored,
        take_over=take_over,
        cells_from=cells_from,
    )
    raise typer.Exit(studies.reproduce(options, _out))


@data_app.command("list")
def data_list() -> None:
    """List the data sets, and say which are on this machine."""
    from dolmen import datasets

    sheet = Sheet("name", "what it is", "where", title="data sets")
    for name in datasets.names():
        info = datasets.describe(name)
        mark = (" (simulated)", "yellow") if info.simulated else ""
        here = datasets.where(name) or datasets.how_to_get(name)
        damage = datasets.damage(name)
        place = Text.assemble(here, (f" (damaged: {damage})", "red")) if damage else here
        sheet.add_row(name, Text.assemble(info.title, mark), place)
    _out.print(sheet)


@data_app.command("show")
def data_show(name: Annotated[str, typer.Argument(help="A name from `dolmen data list`.")]) -> None:
    """Show what a data set is, where it comes from and what its owners allow."""
    from dolmen import datasets

    info = datasets.describe(name)
    rows: dict[str, Any] = {
        "name": info.name,
        "summary": info.summary,
        "notes": info.notes,
        "simulated": "yes: no real person or item is in it" if info.simulated else "no",
        "statistics": ", ".join(f"{count:,} {what}" for what, count in info.statistics.items()),
        "used by": ", ".join(info.used_by),
        "source": info.source_url,
        "terms": f"{info.terms} ({info.terms_url})" if info.terms_url else info.terms,
        "citation": info.citation,
        "on this machine": datasets.where(name) or f"no; {datasets.how_to_get(name)}",
    }
    if datasets.where(name):
        dataset = datasets.load(name, download=False)
        rows |= {
            "order of rows": f"{dataset.order}; {dataset.rule}",
            "schema": ", ".join((*dataset.schema.slots, *dataset.schema.dense, *dataset.schema.labels)),
            **dataset.columns(),
        }
    _out.print(record(info.title, {key: str(value) for key, value in rows.items() if value}))


@data_app.command("correlation")
def data_correlation(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name from `dolmen data list`.")],
    attribute: Annotated[str, typer.Argument(help="A column of its items, such as genres, whose values are compared.")],
    negatives: Annotated[
        int, typer.Option(min=0, help="Random items beside each that was acted on, where the set tells of no others.")
    ] = 0,
    positions: Annotated[int, typer.Option(min=1, max=1000, help="How many past behaviours to look back.")] = 10,
    categories: Annotated[int, typer.Option(min=1, max=100, help="How many values: those with most candidates.")] = 10,
    model: Annotated[
        str | None,
        typer.Option(
            help="Train this model first and lay what it learned beside the data: tin, din or sdim, or your own that "
            "declares Weighs.",
            show_default=False,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Of the model, such as temperature=0.5; as often as needed.", show_default=False
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of the model: passes over the training part.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the model: its start, and the order in which it learns.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A folder that gets JSON, a page and a picture besides.", show_default=False)
    ] = None,
) -> None:
    """Measure whether time matters: what a past behaviour tells of the answer, by what it was and how long ago.

    A ranker that knows positions or ages, such as tin, can win where the figures fall from left to right.

    With --model one is trained, and a second table tells how strongly it brings the same behaviours in.

    Did it learn what the data hold? A rank correlation of 1 says that it orders what and when as they do.

    [bold]Example:[/bold]  dolmen data correlation amazon-hin brand --negatives 1 --model tin --option temperature=0.5
    """
    from dolmen import datasets, studies
    from dolmen.settings import read_options
    from dolmen.unfinished import require_folder

    if model is None:
        _refuse(context, "is of the model that --model names; name one, or leave this out", "option", "epochs", "seed")
    if out is not None:
        require_folder(out, "--out")
    learner = None
    if model is not None:
        learner = studies.Learner(model=model, options=read_options(option or ()), seed=seed, epochs=epochs)
    report = studies.measure_correlation(
        datasets.load(name),
        attribute,
        negatives=negatives,
        position_max=positions,
        category_count=categories,
        learner=learner,
    )
    for sheet in report.sheets():
        _out.print(sheet)
    if out is not None:
        told = ["dolmen", "data", "correlation", name, attribute]
        told += ["--negatives", f"{negatives}"] if negatives else []
        told += ["--positions", f"{positions}"] if positions != 10 else []
        told += ["--categories", f"{categories}"] if categories != 10 else []
        told += learner.arguments if learner is not None else []
        paths = studies.write_correlation(report, out, command=shlex.join([*told, "--out", str(out)]))
        for path in paths:
            _out.print(f"written: {path}", soft_wrap=True)
        if not any(path.suffix == ".svg" for path in paths):
            _out.print(
                "no picture, which needs matplotlib: pip install 'dolmen[studies]'", soft_wrap=True, markup=False
            )


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="A name from `dolmen data list`.")]) -> None:
    """Get a data set, check it, and say what is in it."""
    from dolmen import datasets

    _out.print(repr(datasets.load(name)))


def _refuse(context: typer.Context, why: str, *names: str) -> None:
    """Refuse those of the options ``names`` that were given; beside the others they mean nothing."""
    sources = {name: context.get_parameter_source(name) for name in names}
    given = [
        f"--{name.replace('_', '-')}"
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    ]
    if given:
        raise ConfigError(f"{' and '.join(given)}: {why}")


def main() -> None:
    """The command ``dolmen``. An error that we raise on purpose is one line and its exit status, with no traceback."""
    try:
        app()
    except DolmenError as problem:
        _errors.print("error:", style="bold red", end=" ")
        _errors.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        sys.exit(problem.exit_status)
