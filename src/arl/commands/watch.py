"""Watch an inbox, and carry every batch that arrives through to a decision and, where it asks for one, a training."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from arl.files import read_json
from arl.monitoring.journal import Journal
from arl.monitoring.runs import Run, current, holder, lock

# where dvc.yaml has them
CORPUS, REGISTRY, VERDICT = Path("data"), "registry", Path("out/decision")
_GIT = ["git", "-c", "user.name=arl watch", "-c", "user.email=arl-watch@localhost"]
_LINES = 15  # of a failed step's output that are shown


def watch(inbox: str, *, every: float = 0, monitor: Path = Path("monitor")) -> None:
    """Watch an inbox, a folder or s3://bucket/prefix: `arl watch /srv/inbox`, once, or again every so many seconds.

    Each complete batch (see `arl.ingest.inbox`) is ingested, validated, compared with what the
    champion was trained on
    and decided on: retrain, no-drift, too-few, cooling-down or refused. Unless refused it becomes a
        new version of the corpus (`dvc add data`, committed where there is git); retrain then runs
        all stages (`dvc repro`), whose gate decides what is released. Settings are in params.yaml,
        section watch. Every decision is a line of <monitor>/log.jsonl; <monitor>/index.html shows
        all runs. One process works at a time, another one is told so; a run that was killed at any
        step is gone on with by the next look.

    Raises:
        ValueError: a step failed; its last lines say why. With --every it is told, and looked at
            again.
        FileNotFoundError: this is not the folder of a project.
    """
    for name in ("params.yaml", "dvc.yaml", ".dvc"):
        if not Path(name).exists():
            raise FileNotFoundError(
                f"{name} does not exist: run inside the project, after `dvc init`"
            )
    while True:
        try:
            _look(inbox, monitor)
        except ValueError as error:
            if not every:
                raise
            print(f"arl watch: {error}", file=sys.stderr)
        if not every:
            return
        time.sleep(every)


def _look(inbox: str, monitor: Path) -> None:
    """Deal with everything that is complete in the inbox, if no other process does."""
    with lock(monitor) as held:
        if held is None:
            _tell_running(inbox, monitor)
            return
        steps = _Steps(monitor, held)
        while steps.next_run(inbox):
            pass


def _tell_running(inbox: str, monitor: Path) -> None:
    run = current(monitor)
    what = f"run {run.name}" if run else "a run"
    words = f"A look at {inbox} was asked for while {what} is under way ({holder(monitor)}): it was left alone."
    Journal(monitor).append(
        "decision", [words], decision="already-running", active=run.name if run else None
    )
    print(f"watch: already-running: {words}")


class _Steps:
    """The steps of runs, as child processes that hold the lock too."""

    def __init__(self, monitor: Path, held: int) -> None:
        self._monitor, self._held = monitor, held

    def next_run(self, inbox: str) -> bool:
        """Carry one run to its end; whether there was one."""
        try:
            self._stage("take-batch", inbox, "--corpus", CORPUS)
            run = current(self._monitor)
            if run is None:
                return False
            verdict = self._decide_and_train(run)
        except ValueError as error:
            self._note(error)
            raise
        self._conclude(*(("--verdict", verdict) if verdict else ()))
        print(f"watch: {run.folder / 'index.html'}")
        return True

    def _note(self, error: ValueError) -> None:
        """Write a failure of the run under way into the log, if that can be written."""
        if current(self._monitor) is None:
            return
        try:
            self._conclude("--error", str(error).splitlines()[0])
        except ValueError as second:
            print(f"arl watch: the failure could not be noted: {second}", file=sys.stderr)

    def _decide_and_train(self, run: Run) -> Path | None:
        """The gate's decision folder, where there was a training."""
        self._stage("compare", "--corpus", CORPUS, "--registry", REGISTRY)
        self._stage("decide", "--corpus", CORPUS)
        decided = read_json(run.folder / "decision.json")
        print(
            "\n".join(
                [
                    f"watch: {run.name}: {decided['decision']}",
                    *(f"  {words}" for words in decided["words"]),
                ]
            )
        )
        if decided["decision"] != "refused":
            self._run("dvc add", ["dvc", "add", "--quiet", str(CORPUS)])
            self._commit(f"Corpus: batch {run.new}" if run.new else "Corpus", f"{CORPUS}.dvc")
        if decided["decision"] != "retrain":
            return None
        if not Journal(self._monitor).of_run(run.name, "outcome"):
            self._run("dvc repro", ["dvc", "repro"])
            self._commit(f"Training on batch {run.new}" if run.new else "Training", "dvc.lock")
        return VERDICT

    def _conclude(self, *words: str | Path) -> None:
        self._stage("close-run", "--corpus", CORPUS, "--registry", REGISTRY, *words)

    def _stage(self, name: str, *words: str | Path) -> None:
        command = [
            sys.executable,
            "-m",
            "arl.cli",
            name,
            *map(str, words),
            "--monitor",
            str(self._monitor),
        ]
        self._run(name, command)

    def _commit(self, message: str, file: str) -> None:
        """Commit a file that DVC has changed, and nothing else."""
        if (
            shutil.which("git") is None
            or subprocess.run(["git", "rev-parse"], capture_output=True).returncode
        ):
            return
        self._run("git add", [*_GIT, "add", "--", file])
        if subprocess.run(["git", "diff", "--cached", "--quiet", "--", file]).returncode:
            self._run(
                "git commit", [*_GIT, "commit", "--quiet", "--no-verify", "-m", message, "--", file]
            )

    def _run(self, name: str, command: list[str]) -> None:
        """Run a step to its end; what it says goes to a file, so that it can outlive this process.

        Raises:
            ValueError: it failed.
        """
        file = self._monitor / "steps" / f"{name.replace(' ', '-')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        print(f"watch: {name} ...", flush=True)
        with file.open("wb") as output:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, pass_fds=[self._held], check=False
            )
        told = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if done.returncode:
            nothing = f"exit code {done.returncode} and not a word: is the disk full?"
            last = next((line for line in reversed(told) if line.strip()), nothing)
            raise ValueError(
                "\n".join([f"{name} failed: {last}", *told[-_LINES:], f"all of it: {file}"])
            )
        print(f"watch: {name} took {time.monotonic() - started:.0f} s", flush=True)
