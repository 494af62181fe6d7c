"""Probe quality for equal processor seconds of pretraining, for choices of objective or model.

    python benchmarks/probe_per_second.py CORPUS --minutes 5 "objective=mae" "objective=mae
    objective.drop_masked=false"

Each argument is one choice for `arl configure`, on top of experiment=busbra and one thread. Two
short runs estimate the time of a step, so that start-up does not count. Time is the processor time
of this process, so that other work on the machine hardly counts. Prints one JSON line per choice:
AUROC of the linear probe and of k-NN on the test fold with their intervals, and the cost. Add
data.splits.bus-bra=fold-2 to choose without using fold 1.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from arl.commands.probe import probe
from arl.composition import compose
from arl.evaluation.results import ProbeMetrics
from arl.params import Params
from arl.stages.pretrain import pretrain

_SHORT, _LONG = 3, 33  # steps of the runs that are timed


def seconds_of(params: Params, corpus: Path, folder: Path, steps: int) -> float:
    """Measure the processor time of pretraining."""
    params.pretrain.max_steps = steps
    start = time.process_time()
    pretrain(params, corpus=corpus, checkpoint=folder / "encoder", metrics=folder / "pretrain.json")
    return time.process_time() - start


def measure(choices: list[str], corpus: Path, minutes: float, task: str) -> dict[str, object]:
    """Pretrain for the minutes, then probe."""
    params = compose(["experiment=busbra", "pretrain.threads=1", *choices])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds_of(params, corpus, folder, 1)  # warm
        short, long = (seconds_of(params, corpus, folder, steps) for steps in (_SHORT, _LONG))
        step = (long - short) / (_LONG - _SHORT)
        steps = max(1, round(60 * minutes / step))
        spent = seconds_of(params, corpus, folder, steps)
        probe(
            params,
            task=task,
            corpus=corpus,
            checkpoint=folder / "encoder",
            metrics=folder / "probe.json",
        )
        measured = ProbeMetrics.read(folder / "probe.json")
    auroc = {"linear": vars(measured.linear["auroc"]), "knn": vars(measured.knn["auroc"])}
    images = steps * params.pretrain.batch_size
    return {
        "choices": choices,
        "steps": steps,
        "images": images,
        "seconds": round(spent),
        "auroc": auroc,
    }


def main() -> None:
    """Measure every choice in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("choices", nargs="+")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--task", default="breast")
    arguments = parser.parse_args()
    for choice in arguments.choices:
        print(
            json.dumps(
                measure(choice.split(), arguments.corpus, arguments.minutes, arguments.task)
            ),
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
