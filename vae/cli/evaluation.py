"""`test.py` and `visualizations.py`: command lines made from a function's signature, and their Trainer."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from inspect import Parameter, signature
from itertools import pairwise

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from vae.callbacks import progress
from vae.cli.parser import CommandLineParser


def parse_sample_counts(text: str | tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of samples, rising: (100,) of "100", (1, 10, 100) of "1,10,100".

    Raises:
        ArgumentTypeError: it is something else.
    """
    if isinstance(text, tuple):
        return text
    counts = tuple(int(part) if part.isdigit() else 0 for part in text.split(","))
    if min(counts) < 1 or any(low >= high for low, high in pairwise(counts)):
        raise ArgumentTypeError(f"expected a number of at least 1, or rising ones as in 1,10,100; got {text}")
    return counts


def run_command(function: Callable, *optional: Callable, **options) -> None:
    """Run a function as a command line, which its parameters, their types and its docstring make.

    Args:
        function: what is run.
        optional: functions whose keyword-only parameters the command line has too; it gets them as keywords.
        options: how add_argument takes a parameter whose type does not tell.
    """
    parser = CommandLineParser(description=function.__doc__.splitlines()[0])
    parser.add_function_arguments(function, as_group=False, skip=set(options))
    for other in optional:
        material = {
            name for name, parameter in signature(other).parameters.items() if parameter.kind != Parameter.KEYWORD_ONLY
        }
        parser.add_function_arguments(other, skip=material)
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    function(**parser.parse_args())


def evaluation_trainer(**options) -> Trainer:
    """A Trainer that places and runs a model, with its progress on the screen, and writes nothing."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    try:
        return Trainer(**silent, **options, use_distributed_sampler=False, callbacks=[progress()])
    except (ValueError, ModuleNotFoundError) as error:
        raise MisconfigurationException(f"--accelerator {options['accelerator']}: {error}") from error
