"""Errors as the user reads them: one message, no traceback."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import NoReturn

import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch._dynamo.exc import TorchDynamoException

from vae import runs
from vae.lit_vae import NotFinite, PosteriorCollapse, Underestimate


@contextmanager
def user_facing_errors(*expected: type[Exception]) -> Iterator[None]:
    """On the screen: what the user can act on, and of an expected error its message alone."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # what --trainer.profiler found
    warnings.simplefilter("ignore")
    for category in (PosteriorCollapse, Underestimate):
        warnings.filterwarnings("once", category=category)
    warnings.formatwarning = lambda message, *where: f"warning: {message}\n"
    threading.excepthook = ignore_os_errors_in_threads
    if rank_zero_only.rank:
        sys.stdout = StringIO()  # the first process tells
    try:
        yield
    except KeyboardInterrupt:  # before the first step
        exit_with_message("error: interrupted; nothing was begun", 130)
    except runs.Interrupted as stop:
        exit_with_message(str(stop), 128 + stop.signum)
    except TorchDynamoException as error:
        exit_with_message(f"error: --model.compile true does not work here: {str(error).splitlines()[0]}", 1)
    except (*expected, runs.RunError, NotFinite, MisconfigurationException, OSError) as error:
        exit_with_message(f"error: {error}", 1)
    finally:
        if torch.distributed.is_initialized():  # else gloo's threads may abort the process at its very end
            torch.distributed.destroy_process_group()


def ignore_os_errors_in_threads(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread fails with the disk, and so does the next thing told to it: that will be heard."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def exit_with_message(message: str, status: int) -> NoReturn:
    """End with a message, once where there are several processes."""
    if not rank_zero_only.rank:
        print(message, file=sys.stderr)
    sys.exit(status)
