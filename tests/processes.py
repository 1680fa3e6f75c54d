"""Scripts as processes of their own: fresh interpreters, or forked from a server that has imported everything.

A fresh interpreter imports for seconds, a fork starts in milliseconds. Only the imports differ: a fork too has its
caller's folder and environment, streams of its own, a main thread that signals reach, and the script's status.

The server is a fork of the process that runs the tests, from before the first one.
"""

import logging
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from pytest import MonkeyPatch
from pytorch_lightning.utilities import rank_zero_only

PROJECT = Path(__file__).parents[1]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([])


def serve() -> None:
    """Start the server. multiprocessing would start a new interpreter, which imports for seconds."""

    def fork_server(_, arguments, file_descriptors):
        if pid := os.fork():
            return pid
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for path in Path("/dev/fd").iterdir():
                if int(path.name) not in file_descriptors:  # the ends of pipes whose other ends wait for them
                    os.dup2(null, int(path.name))
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # in place of pytest's
            for name in ("pytorch_lightning", "lightning_fabric", "torchmetrics"):
                for handler in logging.getLogger(name).handlers:
                    if type(handler) is logging.StreamHandler:  # and none of pytest's
                        handler.setStream(sys.stderr)
            exec(arguments[-1])
        finally:
            os._exit(0)

    with MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.util, "spawnv_passfds", fork_server)
        multiprocessing.forkserver.ensure_running()


class Outcome(NamedTuple):
    """How a script ended, what it printed, and in kB by how much it raised its process's peak of memory."""

    status: int
    out: str
    err: str
    memory: int = 0


class Running:
    """A script that runs; its streams are files in a folder, which may be read while it runs."""

    def __init__(self, streams: Path, script: str, *args: object, **environ: str):
        self.out, self.err, self.memory = (streams / name for name in ("out", "err", "memory"))
        self.out.touch()
        self.err.touch()
        self.start(PROJECT / script, [str(arg) for arg in args], os.environ | environ)

    def result(self, timeout: float = 120) -> Outcome:
        """Wait for the script's end."""
        status = self.wait(timeout)
        memory = int(self.memory.read_text()) if self.memory.exists() else 0
        return Outcome(status, self.out.read_text(), self.err.read_text(), memory)


class Fresh(Running):
    """A script that a new interpreter runs, as its user starts it."""

    def start(self, path: Path, args: list[str], environ: dict[str, str]) -> None:
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen([sys.executable, path, *args], stdout=out, stderr=err, env=environ)
        self.send_signal = self.process.send_signal

    def wait(self, timeout: float) -> int:
        """The status.

        Raises:
            TimeoutExpired: the script is not at its end.
        """
        return self.process.wait(timeout)


class Forked(Running):
    """A script that a fork of the server runs."""

    def start(self, path: Path, args: list[str], environ: dict[str, str]) -> None:
        streams = (self.out, self.err, self.memory)
        self.process = fork(run_forked, streams, path, args, environ)

    def send_signal(self, signum: int) -> None:
        os.kill(self.process.pid, signum)

    def wait(self, timeout: float) -> int:
        """As `Fresh.wait`."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked script", timeout)
        return self.process.exitcode


def fork(function: Callable, *args: object) -> BaseProcess:
    """Start a function, which a module of tests defines, in a fork of the server."""
    process = CONTEXT.Process(target=function, args=args)
    process.start()
    return process


def run_forked(streams: tuple[Path, Path, Path], path: Path, args: list[str], environ: dict[str, str]) -> None:
    """In the fork: what the start of an interpreter does."""
    out, err, memory = streams
    for number, stream in ((1, out), (2, err)):
        os.dup2(os.open(stream, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(environ)
    rank_zero_only.rank = int(environ.get("RANK", 0))  # Lightning reads it when it is imported
    sys.argv = [str(path), *args]
    sys.path[:0] = [str(path.parent), *environ.get("PYTHONPATH", "").split(os.pathsep)]
    before = peak()
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        memory.write_text(str(peak() - before))


def peak() -> int:
    """The most memory that this process has had, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds, for a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
