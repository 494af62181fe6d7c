"""Print the gate's decision."""

from pathlib import Path

from arl.evaluation.decision import read_decision


def verdict(*, decision: Path, report: Path) -> None:
    """Print the verdict of the gate, its reasons and the path of the report.

    Args:
        decision: Folder that `arl gate` wrote.
        report: Folder that `arl report` wrote.

    Examples:
        arl verdict --decision out/decision --report out/report
    """
    decided = read_decision(decision)
    print(f"gate: {decided.verdict}")
    for reason in decided.reasons:
        print(f"  {reason}")
    print(f"report: {report / 'index.html'}")
