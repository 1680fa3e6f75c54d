"""What starting costs, beside `import torch, pytorch_lightning` alone: until the first step, and to be of no use."""

import os
import subprocess
import sys
import tempfile
from functools import partial

from pairs import PROJECT, report, seconds

PAIRS = 7


def main() -> None:
    """Measure and print."""
    train = str(PROJECT / "train.py")
    first_step = [train, "--data", "Digits", "--trainer.callbacks+", "pairs.FirstStep"]
    commands = {"first step": first_step, "--help": [train, "--help"], "a wrong option": [train, "--nonsense", "1"]}
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "benchmarks")}
    with tempfile.TemporaryDirectory() as folder:

        def run(*command: str) -> None:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run([sys.executable, *command], cwd=folder, env=environment, **quiet)

        run("-c", "import torch, pytorch_lightning")
        for name, command in commands.items():
            end = "; os._exit(0)" if name == "first step" else ""  # which FirstStep calls: it saves the cleaning up
            imports = ["-c", f"import os, torch, pytorch_lightning{end}"]
            run(*command)
            ratios = []
            for _ in range(PAIRS):
                ratios.append(seconds(partial(run, *command)) / seconds(partial(run, *imports)))
            report(f"start: train.py, {name} / the imports alone", ratios)


if __name__ == "__main__":
    main()
