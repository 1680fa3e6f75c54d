"""The command lines: `train.py` is a LightningCLI, the other two are made from a function's signature."""

import logging
import os
import re
import sys
import threading
import warnings
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import Parameter, signature
from io import StringIO
from itertools import pairwise
from pathlib import Path
from traceback import extract_tb
from typing import NoReturn

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import restricted_number_type
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch._dynamo.exc import TorchDynamoException

from vae import runs
from vae.callbacks import (
    BestCheckpoint,
    DurableCheckpoints,
    ExactLog,
    LastCheckpoint,
    NoProfiler,
    ProgressBar,
    RunLogger,
    Speed,
    StopBySignal,
    Story,
)
from vae.lit_vae import LitVAE, NotFinite, PosteriorCollapse

SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


class Parser(LightningArgumentParser):
    """A parser that answers a wrong command line with what is wrong and what there is, not with its usage."""

    datasets: Mapping[str, type] = {}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser inside this one, for the options of a data set
            super().error(message, ex)
        print(f"error: {self.explain(message)}\nAll options: python3 {self.prog} --help", file=sys.stderr)
        sys.exit(2)

    def explain(self, message: str) -> str:
        """The parser's message in the words of the command line."""
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            return self.unknown_option(found[1].partition("=")[0])
        if found := re.search(r"given class_path '(?:.*\.)?(\w+)':\s+(.*?)\n +- ", message, re.DOTALL):
            name, problem = found.groups()
            if option := re.match(r"Option '(.*)' is not accepted", problem):
                options = ", ".join(options_of(self.datasets[name]))
                return f"unknown option --data.{option[1]}. --data {name} has: {options}"
            message = problem.replace('Parser key "', 'Parser key "data.')
        elif message.startswith('Parser key "data":') and (found := re.search(r"Given value: (.*)", message)):
            return f"unknown data set {found[1]!r}: choose one of {', '.join(self.datasets)}"
        if found := re.match(r'Parser key "(.*?)":.*Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.DOTALL):
            message = f"{found[1]}: expected {found[2].replace(', ', ' or ', 1)}, got {found[3]}"
        elif found := re.search(r"Errors:\n +- (.*?)\n +- ", message, re.DOTALL):
            message = found[1]
        message = re.sub(r"Expected a typing\.Literal\[(.*?)\]", r"expected one of \1", message)
        return re.sub(r"<class '(\w+)'>", r"\1", re.sub(r'^Parser key "(.*?)":\s*', r"\1: ", message))

    def unknown_option(self, option: str) -> str:
        """Names the nearest options of all, and the group's."""
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        known = [name for name in known if not name.startswith("--print") and not name.endswith("+")]
        tails = {name.rpartition(".")[2].removeprefix("--"): name for name in known}
        near = get_close_matches(option.rpartition(".")[2].removeprefix("--"), tails, n=3)
        siblings = [name for name in known if name.rpartition(".")[0] == option.rpartition(".")[0]]
        lines = [f"unknown option {option}"]
        if near:
            lines.append(f"Nearest: {', '.join(tails[tail] for tail in near)}")
        if len(siblings) <= 32:
            lines.append(f"There are: {', '.join(siblings)}")
        return "\n".join(lines)


def options_of(dataset: type) -> list[str]:
    """The options of a data module, as they are typed."""
    names = ArgumentParser().add_class_arguments(dataset)
    return [f"--data.{name}" for name in names if name != "seed"]


class TrainCLI(LightningCLI):
    """`python3 train.py`: model, data, Trainer and run folder, from the command line and YAML files.

    Args:
        data_class: the base of all data modules.
        datasets: the data modules by name.
    """

    def __init__(self, data_class: type[LightningDataModule], datasets: Mapping[str, type], args: ArgsType = None):
        self.datasets = datasets
        self.ckpt_path: Path | None = None
        super().__init__(
            LitVAE,
            data_class,
            subclass_mode_data=True,
            trainer_defaults={
                "max_epochs": 50,
                "num_sanity_val_steps": 0,  # it would count as a validation
                "enable_model_summary": False,
                "devices": 1,  # more of them are slower for models this small
                "use_distributed_sampler": False,  # the data modules share their pictures out themselves
            },
            save_config_kwargs={"overwrite": True},  # a resumed run writes it again
            parser_class=Parser,
            parser_kwargs={"description": "Train a variational auto-encoder."},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # it would write class paths into the checkpoint
            run=False,
            args=args,
        )

    def add_default_arguments_to_parser(self, parser: Parser) -> None:
        parser.add_argument("--seed_everything", type=SEED, default=0, help="Seed of weights, order and noise.")

    def add_arguments_to_parser(self, parser: Parser) -> None:
        parser.datasets = self.datasets
        parser.add_argument(
            "--run_name", type=str | None, help="The run's folder in lightning_logs; default: version_N."
        )
        parser.add_argument("--ckpt_path", type=str | None, help="Go on from this checkpoint; last: the newest run's.")
        parser.set_defaults({"data": next(iter(self.datasets))})
        parser.link_arguments("seed_everything", "model.seed", int)  # a plain one: it goes into the checkpoint
        parser.link_arguments("seed_everything", "data.init_args.seed", int)
        parser.link_arguments("data", "model.image_shape", lambda data: data.image_shape, apply_on="instantiate")
        parser.link_arguments("data", "model.palette", self.palette, apply_on="instantiate")

    def palette(self, data: LightningDataModule) -> tuple[tuple[int, ...], ...] | None:
        """The colours of the training pictures, for the one likelihood that asks for them."""
        if self.config.model.likelihood != "categorical":
            return None
        data.prepare_data()
        data.setup()
        return data.palette()

    def parse_arguments(self, parser: Parser, args: ArgsType) -> None:
        """Parse; where a run is gone on with, once more with that run's own config.yaml as the base."""
        self.parse(parser, args)
        self.run_name = self.config.run_name
        if self.config.ckpt_path:
            self.ckpt_path = runs.to_resume(self.config.ckpt_path, self.run_name)
            settings = runs.run_of(self.ckpt_path) / "config.yaml"
            if not any(settings.samefile(str(named)) for named in self.config.config or ()):
                runs.check_settings(self.ckpt_path, self.datasets)
            parser.default_config_files = [str(settings)]
            self.parse(parser, args)
        self.config.ckpt_path = self.config.run_name = None  # what is saved can be begun anew

    def parse(self, parser: Parser, args: ArgsType) -> None:
        try:
            super().parse_arguments(parser, args)
        except ValueError as error:  # a configuration file that is no text
            parser.error(str(error))
        name = self.config.data.class_path.rpartition(".")[2]
        if name not in self.datasets:
            parser.error(f"unknown data set {name!r}: choose one of {', '.join(self.datasets)}")
        for option in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            if self.config.trainer[option] == 0:
                parser.error(f"trainer.{option}: expected a whole number of at least 1, got 0")
        if self.config.trainer.logger not in (None, True):
            parser.error(
                "trainer.logger: a run always writes into its folder; to try without, --trainer.fast_dev_run true"
            )

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:  # the last ones of absurd sizes
            self.parser.error(str(error))

    def instantiate_trainer(self) -> Trainer:
        options = self.config.trainer
        callbacks = [StopBySignal(), ExactLog(), Speed(), Story()]
        if options.enable_checkpointing is not False:
            callbacks += [BestCheckpoint(), LastCheckpoint()]
        if options.enable_progress_bar is not False:
            callbacks.append(ProgressBar(refresh_rate=20))  # at every batch it would cost a step's time a twentieth
        self.trainer_defaults["callbacks"] = callbacks
        resumed = runs.run_of(self.ckpt_path) if self.ckpt_path else None
        plugins = [DurableCheckpoints(), *(options.plugins or ())]
        profiler = options.profiler or NoProfiler()
        return super().instantiate_trainer(logger=RunLogger(self.run_name, resumed), plugins=plugins, profiler=profiler)

    def fit(self) -> None:
        """Train. What can be wrong is looked at first, so that then nothing is written."""
        if self.ckpt_path:
            runs.check_unchanged(self.ckpt_path, self.model, self.datamodule, self.datasets)
            begun, now = self.parser.get_defaults().trainer.max_epochs, self.config.trainer.max_epochs
            if self.model.hparams.lr_schedule == "cosine" and begun != now:
                raise runs.RunError(
                    f"A cosine schedule ends with its run, here after {begun} epochs; it cannot go on to {now}."
                )
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning's; without a GPU it costs 0.2 ms a step
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.ckpt_path, weights_only=True)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if self.ckpt_path and self.trainer.global_step <= runs.read(self.ckpt_path)["global_step"]:
                raise runs.RunError(
                    f"The run cannot go on from {self.ckpt_path}: it is damaged, or not this project's ({error})."
                ) from error
            if "pytorch_lightning" in extract_tb(error.__traceback__)[-1].filename:  # an option that it cannot take
                raise runs.RunError(str(error).strip()) from error
            raise
        except OSError as error:  # a full disk, say; before there is a folder there is nothing to add
            if not self.trainer.global_step:
                raise
            run = Path(self.trainer.logger.log_dir)
            raise runs.RunError(f"{error}\n{runs.how_to_go_on(run)}") from error


def sample_counts(text: str | tuple[int, ...]) -> tuple[int, ...]:
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


def command(function: Callable, *optional: Callable, **options) -> None:
    """Run a function as a command line, which its parameters, their types and its docstring make.

    Args:
        function: what is run.
        optional: functions whose keyword-only parameters the command line has too; it gets them as keywords.
        options: how add_argument takes a parameter whose type does not tell.
    """
    parser = Parser(description=function.__doc__.splitlines()[0])
    parser.add_function_arguments(function, skip=set(options))
    for other in optional:
        material = {
            name for name, parameter in signature(other).parameters.items() if parameter.kind != Parameter.KEYWORD_ONLY
        }
        parser.add_function_arguments(other, skip=material)
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    function(**parser.parse_args())


def quiet_trainer(**options) -> Trainer:
    """A Trainer that places and runs a model, with a progress bar, and writes nothing."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    try:
        return Trainer(**silent, **options, use_distributed_sampler=False, callbacks=[ProgressBar()])
    except (ValueError, ModuleNotFoundError) as error:
        raise MisconfigurationException(f"--accelerator {options['accelerator']}: {error}") from error


@contextmanager
def plain_speech(*expected: type[Exception]) -> Iterator[None]:
    """On the screen: what the user can act on, and of an expected error its message alone."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # what --trainer.profiler found
    warnings.simplefilter("ignore")
    warnings.filterwarnings("once", category=PosteriorCollapse)
    warnings.formatwarning = lambda message, *where: f"warning: {message}\n"
    threading.excepthook = quiet_thread
    if rank_zero_only.rank:
        sys.stdout = StringIO()  # the first process tells
    try:
        yield
    except KeyboardInterrupt:  # before the first step
        end("error: interrupted; nothing was begun", 130)
    except runs.Interrupted as stop:
        end(str(stop), 128 + stop.signum)
    except TorchDynamoException as error:
        end(f"error: --model.compile true does not work here: {str(error).splitlines()[0]}", 1)
    except (*expected, runs.RunError, NotFinite, MisconfigurationException, OSError) as error:
        end(f"error: {error}", 1)
    finally:
        if torch.distributed.is_initialized():  # else gloo's threads may abort the process at its very end
            torch.distributed.destroy_process_group()


def quiet_thread(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread fails with the disk, and so does the next thing told to it: that will be heard."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def end(message: str, status: int) -> NoReturn:
    """End with a message, once where there are several processes."""
    if not rank_zero_only.rank:
        print(message, file=sys.stderr)
    sys.exit(status)
