"""Watch an inbox: take each incoming batch to a decision and, where it asks for one, a training."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from arl.ingest.inbox import MARKER, list_batches
from arl.monitoring.alerts import send_alerts, send_heartbeat
from arl.monitoring.journal import BatchDecision, Journal, LogEntry, handled_fingerprints
from arl.monitoring.metrics import mark_poll, serve_metrics, write_metrics
from arl.monitoring.runs import Run, RunDecision, current, lock, lock_holder
from arl.outages import OUTAGE_EXIT, is_outage

# The paths of dvc.yaml.
CORPUS, REGISTRY, VERDICT = Path("data"), "registry", Path("out/decision")
# Inbox below the folder of the loop for studies of a PACS.
_FETCHED = "dicomweb"
# Label of a log entry -> exit code of `arl watch` without --every, most urgent first.
EXIT_CODES = {"stuck": 5, "held": 6, "reject": 4, "inconclusive": 4, "refused": 3}
_GIT = ["git", "-c", "user.name=arl watch", "-c", "user.email=arl-watch@localhost"]
_MAX_LINES = 15  # of a failed step's output on the terminal
# What DVC prints when one of its stages ended with OUTAGE_EXIT, or when its own disk is full.
_OUTAGE_MARKS = (f"exited with {OUTAGE_EXIT}", "No space left on device", "Disk quota exceeded")


class StepError(ValueError):
    """A step of a run failed; the same batch would make it fail again."""


class OutageError(StepError):
    """A step of a run ended because a store, a network, a disk or a credential is not available."""


def watch(
    inbox: str,
    *,
    every: float = 0,
    monitor: Path = Path("monitor"),
    site: str = "pacs",
    modality: str = "US",
    since: str = "",
    token_file: Path | None = None,
    metrics_port: int = 0,
    metrics_file: Path | None = None,
) -> None:
    """Watch an inbox and take each incoming batch to a decision, and to a training if it needs one.

    Each complete batch is ingested, validated, compared with what the champion was trained on, and
    decided on: retrain, no-drift, too-few, cooling-down, held or refused. Unless held or refused it
    becomes part of a new version of the corpus (`dvc add data`, committed where there is git). The
    decision retrain runs all stages (`dvc repro`), whose gate decides on the release. Settings:
    section watch of params.yaml. Writes a line of <monitor>/log.jsonl for each decision, and the
    page <monitor>/index.html. One process works at a time. An interrupted run resumes at the next
    poll. A single poll ends with exit code 5 if a run is set aside, 6 if a batch waits for a
    person,
    4 if the gate did not promote, 3 if a batch was refused. ARL_ALERT_WEBHOOK, ARL_ALERT_EMAIL and
    ARL_ALERT_COMMAND name who is told, ARL_HEARTBEAT_URL a dead man's switch.

    Args:
        inbox: A folder or s3://bucket/prefix with <site>/<batch>/ folders, or
            dicomweb+https://host/dicom-web to fetch new studies of a PACS at each poll.
        every: Seconds between two polls; 0: poll once.
        monitor: Folder of the loop's state and log.
        metrics_port: Port at which Prometheus metrics are served; 0: none.
        metrics_file: File for the textfile collector, written after each poll.
        site: Site of the studies of a PACS.
        modality: Modality of the series to fetch from a PACS.
        since: First date of the studies to fetch from a PACS, YYYY-MM-DD.
        token_file: File with the bearer token of a PACS.

    Raises:
        ValueError: a step failed; the last lines of its output say why. With `every`, the message
            goes to stderr and the next poll resumes the run.
        FileNotFoundError: the current folder is no project.

    Writes:
        monitor

    Examples:
        arl watch /srv/inbox --every 60
    """
    for name in ("params.yaml", "dvc.yaml", ".dvc"):
        if not Path(name).exists():
            raise FileNotFoundError(
                f"{name} does not exist: run inside the project, after `dvc init`"
            )
    fetch = _dicomweb_fetcher(inbox, monitor, site, modality, since, token_file)
    if fetch is not None:
        inbox = str(monitor / _FETCHED)
    if metrics_port:
        serve_metrics(monitor, metrics_port)
    while True:
        journal = Journal(monitor)
        # The exit code is about the entries of this poll alone.
        before = max((entry.sequence for entry in journal.entries()), default=0)
        failure: ValueError | OSError | None = None
        try:
            if fetch is not None:
                fetch()
            _poll(inbox, monitor)
            if fetch is not None:
                _remove_handled(inbox, monitor)
            mark_poll(monitor)
        except (ValueError, OSError) as error:
            failure = error
        _report(journal, monitor, metrics_file, failure)
        if not every:
            if failure is not None:
                raise failure
            code = _exit_code([entry for entry in journal.entries() if entry.sequence > before])
            if code:
                sys.exit(code)
            return
        if failure is not None:
            print(f"arl watch: {failure}", file=sys.stderr, flush=True)
        time.sleep(every)


def _dicomweb_fetcher(
    inbox: str, monitor: Path, site: str, modality: str, since: str, token_file: Path | None
) -> Callable[[], list[Path]] | None:
    """What fetches new studies of a PACS; None if the inbox is no DICOMweb address."""
    if not inbox.startswith("dicomweb+"):
        return None
    from arl.ingest.dicom.deidentify import secret_key
    from arl.ingest.network.dicomweb import PREFIX, Fetcher, Query

    query = Query(inbox.removeprefix(PREFIX), modality, since, token_file)
    return Fetcher(query, monitor / _FETCHED, site, secret_key()).poll


def _remove_handled(inbox: str, monitor: Path) -> None:
    """Remove the raw files of fetched studies that are decided on; the PACS keeps them."""
    decided = handled_fingerprints(Journal(monitor).entries())
    for batch in list_batches(inbox, 0, time.time()):
        if batch.fingerprint in decided:
            folder = Path(inbox, batch.name)
            shutil.rmtree(folder)
            folder.with_name(folder.name + MARKER).unlink(missing_ok=True)


def _report(
    journal: Journal, monitor: Path, metrics_file: Path | None, failure: Exception | None
) -> None:
    """Send alerts and the heartbeat, and write metrics; their failures never end the loop."""
    try:
        problems = send_alerts(journal, monitor)
        if failure is None and (silent := send_heartbeat()):
            problems.append(f"the heartbeat was not sent: {silent}")
        if metrics_file is not None:
            write_metrics(monitor, metrics_file)
    except (ValueError, OSError) as error:
        problems = [str(error)]
    for problem in problems:
        print(f"arl watch: {problem}", file=sys.stderr, flush=True)


def _exit_code(entries: list[LogEntry]) -> int:
    """The exit code of one poll: the first of EXIT_CODES that its log entries ask for."""
    labels = {"stuck" if entry.event == "stuck" else entry.label for entry in entries}
    return next((code for label, code in EXIT_CODES.items() if label in labels), 0)


def _poll(inbox: str, monitor: Path) -> None:
    """Deal with all complete batches of the inbox, unless another process does."""
    with lock(monitor) as descriptor:
        if descriptor is None:
            _log_running(inbox, monitor)
            return
        steps = _Steps(monitor, descriptor)
        while steps.next_run(inbox):
            pass


def _log_running(inbox: str, monitor: Path) -> None:
    run = current(monitor)
    name = f"run {run.name}" if run else "a run"
    words = f"A poll of {inbox} found {name} under way ({lock_holder(monitor)}) and left it alone."
    decision = BatchDecision(word="already-running", active=run.name if run else None)
    Journal(monitor).append("decision", [words], decision=decision)
    print(f"watch: already-running: {words}")


class _Steps:
    """The steps of runs, as child processes that hold the lock too."""

    def __init__(self, monitor: Path, lock_descriptor: int) -> None:
        self._monitor, self._lock = monitor, lock_descriptor

    def next_run(self, inbox: str) -> bool:
        """Carry one run to its end; False where there is none."""
        try:
            self._stage("take-batch", inbox, "--corpus", CORPUS)
            run = current(self._monitor)
            if run is None:
                return False
            verdict = self._decide_and_train(run)
            self._close(*(("--verdict", verdict) if verdict else ()))
        except (ValueError, OSError) as error:
            failed = current(self._monitor)
            self._log(error)
            if failed is None or current(self._monitor) is not None:
                raise
            # The run is set aside: other batches go on.
            print(f"arl watch: {error}", file=sys.stderr, flush=True)
            return True
        print(f"watch: {run.folder / 'index.html'}")
        return True

    def _log(self, error: ValueError | OSError) -> None:
        """Write a failure of the run under way into the log, if the log can be written."""
        if current(self._monitor) is None:
            return
        outage = isinstance(error, OutageError) or is_outage(error)
        try:
            self._close("--outage" if outage else "--error", str(error).splitlines()[0])
        except (ValueError, OSError) as second:
            print(f"arl watch: the failure could not be logged: {second}", file=sys.stderr)

    def _decide_and_train(self, run: Run) -> Path | None:
        """The gate's decision folder; None where nothing was trained."""
        self._stage("compare", "--corpus", CORPUS, "--registry", REGISTRY)
        self._stage("decide", "--corpus", CORPUS)
        decided = RunDecision.read(run.folder / "decision.json")
        word = decided.decision.word
        print("\n".join([f"watch: {run.name}: {word}", *(f"  {line}" for line in decided.words)]))
        if word not in ("refused", "held"):
            self._run("dvc add", ["dvc", "add", "--quiet", str(CORPUS)])
            self._commit(f"Corpus: batch {run.new}" if run.new else "Corpus", f"{CORPUS}.dvc")
        if word != "retrain":
            return None
        if not Journal(self._monitor).of_run(run.name, "outcome"):
            # DVC resumes at the first stage that is not done, so that a killed training loses one
            # stage.
            self._run("dvc repro", ["dvc", "repro"])
            self._commit(f"Training on batch {run.new}" if run.new else "Training", "dvc.lock")
        return VERDICT

    def _close(self, *words: str | Path) -> None:
        self._stage("close-run", "--corpus", CORPUS, "--registry", REGISTRY, *words)

    def _stage(self, name: str, *words: str | Path) -> None:
        command = [sys.executable, "-m", "arl.cli", name, *map(str, words)]
        self._run(name, [*command, "--monitor", str(self._monitor)])

    def _commit(self, message: str, file: str) -> None:
        """Commit a file that DVC has changed, and no other file."""
        if (
            shutil.which("git") is None
            or subprocess.run(["git", "rev-parse"], capture_output=True).returncode
        ):
            return
        # One file by name: a person may have other changes in the same folder.
        self._run("git add", [*_GIT, "add", "--", file])
        if subprocess.run(["git", "diff", "--cached", "--quiet", "--", file]).returncode:
            self._run(
                "git commit", [*_GIT, "commit", "--quiet", "--no-verify", "-m", message, "--", file]
            )

    def _run(self, name: str, command: list[str]) -> None:
        """Run a step to its end; its output goes to a file, so that it can outlive this process.

        Raises:
            StepError: the step failed.
            OutageError: the step ended because something around it is not available.
        """
        file = self._monitor / "steps" / f"{name.replace(' ', '-')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        print(f"watch: {name} ...", flush=True)
        with file.open("wb") as output:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, pass_fds=[self._lock], check=False
            )
        if done.returncode == 0:
            print(f"watch: {name} took {time.monotonic() - started:.0f} s", flush=True)
            return
        text = file.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        silent = f"exit code {done.returncode} without a message: is the disk full?"
        last = next((line for line in reversed(lines) if line.strip()), silent)
        # An outage is no fault of the batch and counts no attempt.
        outage = done.returncode == OUTAGE_EXIT or any(mark in text for mark in _OUTAGE_MARKS)
        raise (OutageError if outage or not text.strip() else StepError)(
            "\n".join([f"{name} failed: {last}", *lines[-_MAX_LINES:], f"full output: {file}"])
        )
