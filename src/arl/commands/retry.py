"""Resume a monitoring run that failed too often, or release one whose owner died."""

from dataclasses import replace
from pathlib import Path

from arl.monitoring.journal import Journal, stuck_runs
from arl.monitoring.runs import begin, current


def retry(run: str, *, person: str, reason: str, monitor: Path = Path("monitor")) -> None:
    """Resume a monitoring run that failed too often, or release one whose owner died.

    `arl watch` sets a run aside after watch.attempts failures. After this command the next poll
    resumes the run with all that it has done. A run that a dead Kubeflow run still owns is free for
    the next poll, before watch.lease_hours have passed.

    Args:
        run: Name of the run, as the log and the page have it.
        person: Who decided.
        reason: Why, e.g. what was mended.
        monitor: Folder of the loop's state and log.

    Raises:
        ValueError: the run is neither set aside nor owned by a Kubeflow run.

    Examples:
        arl retry 20261129T014727666055-17dd20ac --person eve --reason "the GPU is back"
    """
    journal, active = Journal(monitor), current(monitor)
    stuck = stuck_runs(journal.entries())
    # A dead Kubeflow run holds its lease until watch.lease_hours have passed.
    if active is not None and active.name == run and active.owner:
        words = [f"{person} released run {run} from its owner {active.owner}: {reason}"]
        journal.append("retry", words, run=run, person=person)
        # Without an owner the next poll takes the run at once, not after the lease.
        begin(replace(active, owner=""))
    elif run in stuck:
        words = [f"{person} lets run {run} resume at the next poll: {reason}"]
        journal.append("retry", words, run=run, person=person)
    else:
        raise ValueError(
            f"run {run} is neither set aside nor owned by a Kubeflow run; set aside: "
            f"{', '.join(stuck) or 'none'}"
        )
    print(f"run {run} resumes at the next poll")
