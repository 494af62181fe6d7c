"""An experiment's findings as an offline page and as markdown."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from arl.evaluation.comparison import Figure, Replicate, one_matrix
from arl.evaluation.metrics import TITLES
from arl.evaluation.predictions import labels, scores
from arl.evaluation.statistics import Interval
from arl.experiments.pictures import Shown, as_markdown
from arl.experiments.spec import Experiment
from arl.reports import html
from arl.reports.plots import efficiency, roc

Cells = dict[
    tuple[str, str], dict[str, list[Replicate]]
]  # (protocol, task) -> row, or row and audit -> replicates
Results = dict[
    tuple[str, str], dict[str, dict[str, Figure]]
]  # (protocol, task) -> metric -> row -> figure

_TEST_SETS = range(135, 161)  # images that the paper's breast test set may have had
_PROTOCOLS = {"probe": "linear probe", "finetune": "fine-tuned"}
_MATRIX = ("accuracy", "sensitivity", "specificity")
_TRAINED = ("pretrain", "probe", "finetune")


@dataclass(frozen=True)
class Size:
    """Test images and patients over all replicates, each counted once."""

    images: int
    patients: int


@dataclass(frozen=True)
class Findings:
    """What an experiment found, and with what."""

    found: Experiment
    scale: str
    changes: list[str]  # choices for every row, beside the scale's
    replicates: int
    cells: Cells
    results: Results
    shown: list[Shown]
    used: dict[str, list[str]]  # row -> its trainings and measurements
    times: pd.DataFrame  # of them all, see `Runner.times`
    absent: dict[str, str]  # row -> why it was not run
    synthetic: bool
    resamples: int
    confidence: float

    @property
    def command(self) -> str:
        """What makes this again."""
        words = ["arl", "paper", self.found.name, "--scale", self.scale]
        if self.results and self.replicates < len(self.found.scales[self.scale].replicates):
            words += ["--replicates", str(self.replicates)]
        return shlex.join([*words, *(["--set", *self.changes] if self.changes else [])])

    def size(self, protocol: str, task: str) -> Size:
        """Of the test set."""
        tables = [replicate.table for replicate in next(iter(self.cells[protocol, task].values()))]
        return Size(
            images=len({name for table in tables for name in table["id"]}),
            patients=len({name for table in tables for name in table["patient"]}),
        )

    def label(self, name: str) -> str:
        """A row's label; of an audit what the model was told."""
        row, _, told = name.partition(", ")
        label = next(one.label for one in self.found.rows if one.name == row)
        return f"{label}: {'no anatomy' if told == 'none' else 'wrong anatomy'}" if told else label

    def claimed(self, protocol: str, task: str, metric: str, name: str) -> float | None:
        """What the paper says; None: nothing."""
        claims = next((row.claimed for row in self.found.rows if row.name == name), {})
        return claims.get(protocol, {}).get(task, {}).get(metric)

    def minutes(self, name: str) -> str | None:
        """Processor time of a row's trainings, a replicate; None for an audit, which trains nothing."""
        if name not in self.used:
            return None
        rows = self.times[
            self.times["name"].isin(self.used[name]) & self.times["stage"].isin(_TRAINED)
        ]
        text = f"{rows['cpu'].sum() / 60 / self.replicates:.1f}"
        return f"at least {text}" if rows["resumed"].any() else text

    def explanation(self, protocol: str, task: str) -> str:
        """What the numbers of a table are."""
        size, count = self.size(protocol, task), self.replicates
        share = f"{self.confidence:.0%}".replace("%", " %")
        seeds = f"the mean over {count} seeds" if count > 1 else "one seed"
        text = (
            f"{size.images:,} test images of {size.patients:,} patients, {seeds}. Intervals: {share} over patients "
            f"(BCa bootstrap, {self.resamples:,} resamples of whole patients"
        )
        if count > 1:
            text += " of that mean); they hold for these seeds, whose own values stand beside them"
        else:
            text += ")"
        return f"{text}."

    def compared(self, protocol: str) -> str:
        """What the differences of a protocol's tables are."""
        comparisons = sum(
            figure.corrected is not None
            for (of, _), figures in self.results.items()
            if of == protocol
            for figure in next(iter(figures.values())).values()
        )
        return (
            f"Differences: {self.label(self.found.reference)} minus the row, paired over the same resamples; "
            f"p two-sided, corrected (Holm) for the {comparisons} comparisons of the {_PROTOCOLS[protocol]} tables; "
            "the second p does without resampling and sums over patients, too (AUROC: DeLong's by Obuchowski; shares: "
            "McNemar's exact test). "
            "Detectable: the smallest true difference that this test set shows with a power of 80 %."
        )


def _value(interval: Interval, form: str = ".3f") -> str:
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def _p(value: float | None) -> str | None:
    return None if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


# --- markdown --------------------------------------------------------------------------------


def markdown(findings: Findings) -> str:
    """Every table with what its numbers are, and the command; to be put into a README as it is."""
    parts = []
    if findings.synthetic:
        parts.append("The corpus holds **synthetic** images: no figure here is clinical.")
    for protocol, task in findings.results:
        parts += [f"**{task}, {_PROTOCOLS[protocol]}**", _markdown_table(findings, protocol, task)]
        parts.append(findings.explanation(protocol, task))
        if findings.found.reference in findings.results[protocol, task][_main(findings, task)]:
            parts[-1] += f" {findings.compared(protocol)}"
    parts += as_markdown(findings.shown)
    absent = [f"{findings.label(name)} ({reason})" for name, reason in findings.absent.items()]
    if absent:
        parts.append(f"Not run: {'; '.join(absent)}.")
    trained = (
        "CPU minutes: of a row's trainings for one seed, probe and fine-tuning. "
        if findings.results
        else ""
    )
    parts.append(f"{trained}Made by `{findings.command}`.")
    return "\n\n".join(parts) + "\n"


def _main(findings: Findings, task: str) -> str:
    return findings.found.metrics[task][0]


def _markdown_table(findings: Findings, protocol: str, task: str) -> str:
    figures = findings.results[protocol, task]
    main, others = _main(findings, task), findings.found.metrics[task][1:]
    claims = any(findings.claimed(protocol, task, main, name) is not None for name in figures[main])
    columns = [
        "",
        TITLES[main],
        *(["claimed"] if claims else []),
        *(["each seed"] if findings.replicates > 1 else []),
    ]
    checked = _check_title(main, figures[main])
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
        row = [findings.label(name), _value(figure.interval)]
        if claims:
            row.append(_or_dash(findings.claimed(protocol, task, main, name), ".3f"))
        if findings.replicates > 1:
            row.append(", ".join(f"{value:.3f}" for value in figure.each))
        row += [
            _value(figure.difference, "+.3f") if figure.difference else "–",
            _p(figure.corrected) or "–",
        ]
        row += [_p(figure.check_corrected) or "–"] if checked else []
        row.append(_or_dash(figure.detectable, ".3f"))
        row += [f"{figures[other][name].interval.value:.3f}" for other in others]
        rows.append([*row, findings.minutes(name) or "–"])
    return "\n".join(_line(cells) for cells in [columns, ["---"] * len(columns), *rows])


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# --- the page --------------------------------------------------------------------------------


def page(findings: Findings) -> str:
    """The findings as an offline page."""
    return html.page(
        findings.found.title, _warning(findings) + _body(findings), subtitle=_scale(findings)
    )


def report(findings: Sequence[Findings]) -> str:
    """The findings of several experiments, in the order of their titles' numbers, as one offline page."""
    ordered = sorted(findings, key=lambda one: _natural(one.found.title))
    body = _warning(ordered[0]) + html.contents(one.found.title for one in ordered)
    for one in ordered:
        body += html.section(
            one.found.title, _body(one, f"{one.found.title.partition(',')[0]}: ", level=3)
        )
    return html.page("The paper's tables and figures", body, subtitle=_scale(ordered[0]))


def _natural(title: str) -> list[str]:
    """Table 10 after Table 9."""
    return [part.zfill(3) for part in re.split(r"(\d+)", title)]


def _warning(findings: Findings) -> Markup:
    text = "The corpus holds synthetic images: no figure on this page is clinical."
    return html.note(text, "warn") if findings.synthetic else Markup("")


def _scale(findings: Findings) -> str:
    choices = " ".join([*findings.found.scales[findings.scale].choices, *findings.changes])
    return f"Scale {findings.scale}: {choices}"


def _body(findings: Findings, prefix: str = "", level: int = 2) -> Markup:
    """The sections of an experiment; the prefix tells their titles from those of others on the same page."""
    sections = {
        f"{task}, {_PROTOCOLS[protocol]}": _section(findings, protocol, task)
        for protocol, task in findings.results
    } | {one.title: one.body for one in findings.shown}
    absent = [[findings.label(name), reason] for name, reason in findings.absent.items()]
    if absent:
        sections["Rows that were not run"] = html.table(["row", "why"], absent)
    if len(findings.times):
        sections["Time"] = _times(findings.times)
    body = html.note(findings.found.note) if findings.found.note else Markup("")
    for title, content in sections.items():
        body += html.section(f"{prefix}{title}", content, level)
    return body + Markup("<p>{} {}</p>\n").format("Made by", html.code(findings.command))


def _section(findings: Findings, protocol: str, task: str) -> Markup:
    figures = findings.results[protocol, task]
    main = _main(findings, task)
    claims = {metric: any(_claims(findings, protocol, task, metric)) for metric in figures}
    columns = ["row"]
    for metric in figures:
        columns += [TITLES[metric], *(["claimed"] if claims[metric] else [])]
    rows: list[list[object]] = []
    for name in figures[main]:
        cells: list[object] = [findings.label(name)]
        for metric in figures:
            cells.append(_cell(figures[metric][name]))
            cells += [findings.claimed(protocol, task, metric, name)] if claims[metric] else []
        rows.append([*cells, findings.minutes(name)])
    caption = (
        f"{findings.explanation(protocol, task)} CPU minutes: of a row's trainings for one seed."
    )
    return (
        _curve(findings, main, figures[main])
        + html.table([*columns, "CPU minutes"], rows, caption)
        + _roc(findings, protocol, task)
        + _comparisons(findings, protocol, main, figures[main])
        + _consistency(findings, protocol, task)
    )


def _claims(findings: Findings, protocol: str, task: str, metric: str) -> list[bool]:
    names = [row.name for row in findings.found.rows]
    return [findings.claimed(protocol, task, metric, name) is not None for name in names]


def _cell(figure: Figure) -> Markup:
    spread = "" if figure.spread is None else f" ± {figure.spread:.3f}"
    low, high = figure.interval.low, figure.interval.high
    cell = Markup("{:.3f}{}<br><small>{:.3f} to {:.3f}</small>").format(
        figure.interval.value, spread, low, high
    )
    if len(figure.each) == 1:
        return cell
    return cell + Markup("<br><small>seeds {}</small>").format(
        " ".join(f"{value:.3f}" for value in figure.each)
    )


def _curve(findings: Findings, metric: str, figures: dict[str, Figure]) -> Markup:
    """The metric against the share, where the rows of the experiment differ in one."""
    series: dict[str, list[tuple[float, Interval]]] = {}
    for row in findings.found.rows:
        if row.share is not None and row.name in figures:
            series.setdefault(row.series or row.label, []).append(
                (row.share, figures[row.name].interval)
            )
    if not series:
        return Markup("")
    title = TITLES[metric]
    drawing = efficiency(
        {name: sorted(points, key=lambda at: at[0]) for name, points in series.items()},
        metric=title,
    )
    return html.figure(drawing, "With the interval over patients.", f"{title} against the share")


def _roc(findings: Findings, protocol: str, task: str) -> Markup:
    """The curves of all rows by the first seed, with the band of the row that the others are compared with."""
    methods = {
        name: replicates[0].table for name, replicates in findings.cells[protocol, task].items()
    }
    name = findings.found.reference
    if (
        name not in methods
        or _main(findings, task) != "auroc"
        or scores(methods[name]).shape[1] != 2
    ):
        return Markup("")
    table = methods.pop(name)
    others = [
        (findings.label(other), labels(of), scores(of)[:, 1])
        for other, of in methods.items()
        if other in {row.name for row in findings.found.rows}
    ]
    title = f"{task}, {findings.label(name)}"
    drawing = roc(labels(table), scores(table)[:, 1], table["patient"], title=title, others=others)
    seed = " First seed." if findings.replicates > 1 else ""
    return html.figure(
        drawing, f"The band is that of {findings.label(name)}.{seed}", f"ROC curves of {task}"
    )


def _comparisons(
    findings: Findings, protocol: str, main: str, figures: dict[str, Figure]
) -> Markup:
    checked = _check_title(main, figures)
    rows = [
        [
            findings.label(name),
            _value(figure.difference, "+.3f"),
            _p(figure.corrected),
            *([_p(figure.check_corrected)] if checked else []),
            figure.detectable,
        ]
        for name, figure in figures.items()
        if figure.difference is not None
    ]
    if not rows:
        return Markup("")
    return html.table(
        ["row", "difference", "p", *checked, "detectable"], rows, findings.compared(protocol)
    )


def _check_title(metric: str, figures: dict[str, Figure]) -> list[str]:
    """What the second p value of a table is called; none where no row has one."""
    if all(figure.check is None for figure in figures.values()):
        return []
    return ["p, DeLong" if metric == "auroc" else "p, McNemar"]


def _consistency(findings: Findings, protocol: str, task: str) -> Markup:
    """Whether the claimed accuracy, sensitivity and specificity of a row can be of one confusion matrix."""
    claims = {row.label: row.claimed.get(protocol, {}).get(task, {}) for row in findings.found.rows}
    printed = {
        label: [claim[name] for name in _MATRIX]
        for label, claim in claims.items()
        if set(_MATRIX) <= claim.keys()
    }
    if not printed:
        return Markup("")
    decimals = {
        name: max(_places(values[at]) for values in printed.values())
        for at, name in enumerate(_MATRIX)
    }
    rows = [[label, *values, _matrix(values, decimals)] for label, values in printed.items()]
    caption = (
        "Whether the claimed figures can come from one confusion matrix of 135 to 160 test images."
    )
    return html.table(["row", *_MATRIX, "matrix"], rows, caption)


def _places(printed: float) -> int:
    """Decimals of a claim; a column is printed with as many as its longest, as zeros at the end are not kept."""
    return len(str(printed).partition(".")[2])


def _matrix(values: Sequence[float], decimals: dict[str, int]) -> str:
    accuracy, sensitivity, specificity = values
    places = (decimals["accuracy"], decimals["sensitivity"], decimals["specificity"])
    found = one_matrix(accuracy, sensitivity, specificity, _TEST_SETS, places)
    return "none" if found is None else f"{found[0]} of {found[1]} and {found[2]} of {found[3]}"


def _times(times: pd.DataFrame) -> Markup:
    sums = times.groupby("stage").agg(
        count=("seconds", "count"), seconds=("seconds", "sum"), cpu=("cpu", "sum")
    )
    rows = [
        [str(stage), int(n), float(seconds), float(cpu)]
        for stage, n, seconds, cpu in sums.itertuples()
    ]
    caption = "Wall-clock and processor seconds when each was run, on the machine that ran it."
    if times["resumed"].any():
        caption += " What was killed and went on counts with its last part only."
    return html.table(["stage", "runs", "seconds", "CPU seconds"], rows, caption)
