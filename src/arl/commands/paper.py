"""Run the paper's tables and figures, or an experiment in their manner."""

from pathlib import Path

from arl import console
from arl.composition import CONF
from arl.corpus.location import ReadableCorpus
from arl.experiments.results import ExperimentResults, ExperimentRun, results_of
from arl.experiments.run import run_experiment
from arl.experiments.runner import Runner
from arl.experiments.spec import experiment_names
from arl.files import atomic_directory
from arl.reports.experiment import write_page, write_report
from arl.reports.experiment_markdown import markdown
from arl.reports.stamp import RunStamp, Stopwatch

_ALL = "all"
_OF_THE_PAPER = ("table", "figure")  # how the names of its experiments begin


def paper(
    experiment: str,
    *,
    corpus: ReadableCorpus = Path("data"),
    out: Path = Path("out/paper"),
    scale: str = "laptop",
    work: Path = Path("runs/paper"),
    baselines: Path = Path("out/baselines"),
    replicates: int | None = None,
    set: list[str] = [],  # noqa: B006  the option is --set; the CLI reads the default
) -> None:
    """Run a table or figure of the paper and compare it with the paper's values.

    Experiments are the files of conf/paper. Each training is stored under a hash of its settings
    and data, so an interrupted run resumes, and tables share rows; the hash leaves out the code.
    Several processes with the same command share the work. Writes index.html, table.md for a
    README, and results.json. Example: `arl paper table3 --scale busbra`.

    Args:
        experiment: a file of conf/paper, e.g. table3; or all, the paper's own on one page.
        corpus: the corpus.
        out: the folder of the results; each experiment has its own folder there.
        scale: laptop (the sample corpus), busbra (BUS-BRA and FALLMUD) or paper.
        work: the folder of trainings and measurements, which later runs use again.
        baselines: the folder with the encoders that `arl baseline import` wrote. A row without
            its weights is left out, and the page says so.
        replicates: use only the first few seeds of the scale.
        set: changes for every row, e.g. --set pretrain.max_steps=100 pretrain.threads=1.

    Raises:
        ValueError: an unknown experiment or scale, a choice that replicates make, or the corpus
            cannot serve a task.

    Writes:
        out

    Examples:
        arl paper table3 --scale laptop
        arl paper table3 --scale busbra --set pretrain.max_steps=100 pretrain.threads=1
    """
    watch = Stopwatch("arl paper")
    # Our own ablations share the folder; `all` reproduces the paper only.
    names = [name for name in experiment_names(CONF / "paper") if name.startswith(_OF_THE_PAPER)]
    runs = []
    for name in names if experiment == _ALL else [experiment]:
        runner = Runner(corpus, work, baselines, set)
        runs.append(run_experiment(name, scale, runner, replicates))
        _write(runs[-1], watch.stamp(corpus), out)
    if experiment == _ALL:
        with atomic_directory(out / f"{_ALL}-{scale}") as folder:
            write_report(runs, watch.stamp(corpus), folder)
        console.info(f"Open {out / f'{_ALL}-{scale}' / 'index.html'}.")


def _write(run: ExperimentRun, stamp: RunStamp, out: Path) -> None:
    target = out / f"{run.experiment.name}-{run.scale}"
    # Other processes of the same command read these results.
    with atomic_directory(target) as folder:
        results_of(run).write(folder / ExperimentResults.FILE)
        write_page(run, stamp, folder)
        (folder / "table.md").write_text(markdown(run), encoding="utf-8")
    console.info(f"Open {target / 'index.html'}.")
