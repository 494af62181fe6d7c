"""Print the gate's decision."""

from pathlib import Path

from arl.evaluation.decision import read_decision


def verdict(*, decision: Path, report: Path) -> None:
    """Print the gate's decision, its reasons and where the report is.

    Reads the decision folder of `arl gate`; writes nothing.
    """
    decided = read_decision(decision)
    print(f"gate: {decided.verdict}")
    for reason in decided.reasons:
        print(f"  {reason}")
    print(f"report: {report / 'index.html'}")
