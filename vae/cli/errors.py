"""Errors as the user reads them: one message, no traceback."""

import errno
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from typing import NoReturn

import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch._dynamo.exc import TorchDynamoException

from vae import runs
from vae.callbacks.shutdown import handle_signal
from vae.cli.output import own_output
from vae.soundness import NotFinite, PosteriorCollapse

REMEDIES = {
    errno.EACCES: "choose a folder that can be written to",
    errno.EROFS: "choose a folder that can be written to",
    errno.EEXIST: "it is a file; a folder is needed",
    errno.ENOTDIR: "it is a file; a folder is needed",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: your quota is used up",
}
CLOSED_PIPE = 141  # the status of a command whose reader has enough, such as head
LEVELS = {
    "pytorch_lightning": logging.ERROR,
    "lightning_fabric": logging.ERROR,
    "pytorch_lightning.profilers": logging.INFO,  # what --trainer.profiler found
}


@contextmanager
def user_facing_errors(*expected: type[Exception]) -> Iterator[None]:
    """On the screen: what the user can act on, and of an expected error its message alone.

    Of several processes the first one that fails prints its error: those of the others follow from its end.

    Args:
        expected: errors, and warnings that are shown.
    """
    where = f" in process {rank_zero_only.rank}" if rank_zero_only.rank else ""
    has_group = torch.distributed.is_initialized()
    try:
        with own_messages(kind for kind in expected if issubclass(kind, Warning)):
            yield
    except runs.Interrupted as stop:
        exit_with_message(str(stop), 128 + stop.signum)
    except TorchDynamoException as error:
        exit_with_message(f"error: --model.compile true does not work here: {str(error).splitlines()[0]}", 1)
    except NotFinite as error:
        exit_with_message(f"error: {error}", 1)
    except BrokenPipeError:
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        exit_with_message(f"error{where}: {describe_os_error(error)}", 1)
    except (*expected, runs.RunError, MisconfigurationException) as error:
        exit_with_message(f"error{where}: {error}", 1)
    except Exception:
        if not is_first_failure():
            sys.exit(1)
        raise
    finally:
        if torch.distributed.is_initialized() and not has_group:  # else gloo's threads may abort the process at its end
            torch.distributed.destroy_process_group()


@contextmanager
def own_messages(others: Iterable[type[Warning]]) -> Iterator[None]:
    """On the screen: warnings of `vae` and those others alone. Afterwards all is as it was: a notebook goes on."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(own_output())
        if rank_zero_only.rank:
            stack.enter_context(redirect_stdout(StringIO()))
        else:
            shown: list[type[Warning]] = [PosteriorCollapse, runs.OtherCheckpoint, runs.SettingsLeftOut]
            for category in (*shown, *others):
                warnings.filterwarnings("always", category=category)
        for name, level in LEVELS.items():
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
        for module, name, hook in (
            (warnings, "formatwarning", lambda message, *where: f"warning: {message}\n"),
            (threading, "excepthook", ignore_os_errors_in_threads),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, hook)
        stack.callback(handle_signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        handle_signal(signal.SIGINT, interrupt)
        yield


def interrupt(signum: int, frame: object) -> NoReturn:
    """Ctrl-C where no training is under way: an exception of our own, since the Trainer ends silently on Python's."""
    raise runs.Interrupted("error: interrupted", signum)


def describe_os_error(error: OSError) -> str:
    """What failed, on which file, and what to do."""
    parts = (error.filename, error.strerror or str(error), REMEDIES.get(error.errno or 0))
    return ": ".join(str(part) for part in parts if part)


def ignore_os_errors_in_threads(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread fails with the disk, and so does the next thing logged: that is reported."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def exit_with_message(message: str, status: int) -> NoReturn:
    """End with a message; of several processes the first one that fails prints it."""
    if is_first_failure():
        print(message, file=sys.stderr, flush=True)
    sys.exit(status)


def is_first_failure() -> bool:
    """Whether no other process has failed before this one: the processes count in the store of their group."""
    if not torch.distributed.is_initialized():
        return True
    try:
        return torch.distributed.distributed_c10d._get_default_store().add("failures", 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return False
