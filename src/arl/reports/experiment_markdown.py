"""The tables of an experiment in Markdown, ready for a README."""

from collections.abc import Sequence

from arl.evaluation.metrics import TITLES
from arl.evaluation.panels import Section
from arl.experiments.results import PROTOCOL_TITLES, ExperimentRun
from arl.reports import formatting
from arl.reports.experiment import check_title


def markdown(run: ExperimentRun) -> str:
    """Every table with its caption, and the command that makes it."""
    parts = []
    if run.synthetic:
        parts.append("The corpus holds **synthetic** images: no figure here is clinical.")
    for protocol, task in run.results:
        parts += [
            f"**{task}, {PROTOCOL_TITLES[protocol]}**",
            _markdown_table(run, protocol, task),
        ]
        parts.append(run.explanation(protocol, task))
        if run.experiment.reference in run.results[protocol, task][run.main_metric(task)]:
            parts[-1] += f" {run.compared(protocol)}"
    parts += as_markdown(run.sections)
    absent = [f"{run.label(name)} ({reason})" for name, reason in run.absent.items()]
    if absent:
        parts.append(f"Not run: {'; '.join(absent)}.")
    trained = (
        "CPU minutes: of a row's trainings for one seed, probe and fine-tuning. "
        if run.results
        else ""
    )
    parts.append(f"{trained}Made by `{run.command}`.")
    return "\n\n".join(parts) + "\n"


def _markdown_table(run: ExperimentRun, protocol: str, task: str) -> str:
    figures = run.results[protocol, task]
    main, others = run.main_metric(task), run.experiment.metrics[task][1:]
    # An experiment of ours has no values of the paper to compare with.
    claims = any(run.claimed(protocol, task, main, name) is not None for name in figures[main])
    columns = [
        "",
        TITLES[main],
        *(["claimed"] if claims else []),
        *(["each seed"] if run.replicates > 1 else []),
    ]
    checked = check_title(main, figures[main])
    columns += [
        "difference",
        "p",
        *checked,
        "detectable",
        *(TITLES[name] for name in others),
        "CPU minutes",
    ]
    rows = []
    for name, figure in figures[main].items():
        row = [run.label(name), formatting.interval(figure.interval)]
        if claims:
            row.append(formatting.fixed(run.claimed(protocol, task, main, name)))
        if run.replicates > 1:
            row.append(", ".join(f"{value:.3f}" for value in figure.each))
        row += [
            formatting.interval(figure.difference, signed=True),
            formatting.p_value(figure.corrected),
        ]
        row += [formatting.p_value(figure.check_corrected)] if checked else []
        row.append(formatting.fixed(figure.detectable))
        row += [f"{figures[other][name].interval.value:.3f}" for other in others]
        rows.append([*row, run.minutes(name) or "–"])
    return "\n".join(_line(cells) for cells in [columns, ["---"] * len(columns), *rows])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_markdown(sections: Sequence[Section]) -> list[str]:
    """The tables of sections."""
    parts = []
    for one in sections:
        if one.columns:
            lines = [one.columns, ["---"] * len(one.columns), *one.rows]
            parts += [
                f"**{one.title}**",
                "\n".join("| " + " | ".join(line) + " |" for line in lines),
            ]
            parts += [one.caption] if one.caption else []
    return parts
