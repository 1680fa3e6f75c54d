"""What the benchmarks share: programs that run in turn in one sitting, and the ratios between them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from pytorch_lightning import Callback

PROJECT = Path(__file__).parents[1]
RESULTS = PROJECT / "benchmarks" / "results.json"


def seconds(function: Callable) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(name: str, ratios: list[float], path: Path = RESULTS) -> None:
    """One line of the table, and one entry of the file of results: the median of the pairs, and their range."""
    print(f"{name:<84} {median(ratios):7.3f}   ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    results[name] = {"median": median(ratios), "min": min(ratios), "max": max(ratios), "pairs": len(ratios)}
    path.write_text(json.dumps(results, indent=2) + "\n")


class Turns(Callback):
    """Makes each epoch of a training wait for its turn, and reports its seconds, without validation."""

    def __init__(self):
        self.start = None

    def on_train_epoch_start(self, *_: Any) -> None:
        self.report_seconds()
        os.read(int(os.environ["TURN"]), 1)
        self.start, self.elsewhere = time.perf_counter(), 0.0

    def on_validation_start(self, *_: Any) -> None:
        self.validation = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        self.elsewhere += time.perf_counter() - self.validation

    def on_train_end(self, *_: Any) -> None:
        self.report_seconds()

    def report_seconds(self) -> None:
        elapsed = 0.0 if self.start is None else time.perf_counter() - self.start - self.elsewhere
        os.write(int(os.environ["ELAPSED"]), f"{elapsed}\n".encode())


class FirstStep(Callback):
    """Ends the process after its first step."""

    def on_train_batch_end(self, *_: Any) -> None:
        os._exit(0)


class Training:
    """A process that trains one epoch when it is asked to; its output is discarded."""

    def __init__(self, command: list[str], folder: Path):
        turn, self.turn = os.pipe()
        elapsed, self.write_end = os.pipe()
        env = os.environ | {
            "TURN": str(turn),
            "ELAPSED": str(self.write_end),
            "PYTHONPATH": str(PROJECT / "benchmarks"),
        }
        self.process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=env, pass_fds=(turn, self.write_end), stdout=subprocess.DEVNULL
        )
        os.close(self.write_end)
        self.elapsed = os.fdopen(elapsed)
        self.elapsed.readline()  # it is ready for the first epoch

    def epoch(self) -> float:
        """The seconds of one epoch."""
        os.write(self.turn, b"\n")
        return float(self.elapsed.readline())

    def end(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.wait()
