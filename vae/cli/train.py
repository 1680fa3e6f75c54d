"""`train.py`: a LightningCLI around LitVAE, the data modules and the Trainer."""

import errno
import os
import warnings
from argparse import ArgumentError
from collections.abc import Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from jsonargparse import Namespace
from jsonargparse.typing import restricted_number_type
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, EarlyStopping, LearningRateFinder, ModelCheckpoint, Timer
from pytorch_lightning.callbacks import ProgressBar as Progress
from pytorch_lightning.cli import ArgsType, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from vae import runs
from vae.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    ExactResume,
    GracefulShutdown,
    LastCheckpoint,
    RunLogger,
    TensorBoardImages,
    Throughput,
    built_state,
    progress,
)
from vae.cli.errors import describe_os_error
from vae.cli.messages import unknown_dataset
from vae.cli.own_parts import ImportOption
from vae.cli.parser import CommandLineParser, TrainerHelp
from vae.lit_vae import LitVAE
from vae.model import unused_options

SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
DEFAULTS = signature(Trainer).parameters
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
AT_LEAST_ONE = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "max_epochs",
    "max_steps",
    "val_check_interval",
)
REFUSED = {  # options of the Trainer without effect here, or with a wrong one
    "accumulate_grad_batches": "not available; the images in a training step are --data.batch_size",
    "barebones": "a run always writes into its folder; to try without, --trainer.fast_dev_run true",
    "default_root_dir": "a run lives in lightning_logs in the working directory; --run_name names its folder",
    "gradient_clip_algorithm": "gradients are clipped by their norm; the option is --model.gradient_clip_val",
    "gradient_clip_val": "the option is --model.gradient_clip_val",
    "limit_predict_batches": "train.py does not predict",
    "limit_test_batches": "train.py does not test; test.py does",
    "model_registry": "not available; a model stays in the folder of its run",
    "num_sanity_val_steps": "validation before training would be logged as that of an epoch",
    "overfit_batches": "each epoch has an order of its own; to train on fewer images, --trainer.limit_train_batches",
    "use_distributed_sampler": "the data modules shard their images themselves",
}


def kept_options(config: Namespace) -> dict[str, Any]:
    """The options that a run keeps."""
    data = config.data.init_args.as_dict()
    return {
        "--data": config.data.class_path.rpartition(".")[2],
        **{f"--data.{name}": value for name, value in data.items() if name != "data_dir"},
        **{f"--model.{name}": value for name, value in config.model.as_dict().items()},
        "--seed_everything": config.seed_everything,
        "--init_from": config.init_from,
    }


class SaveSettings(SaveConfigCallback):
    """Writes the settings into each checkpoint, and config.yaml, a record for people, when training starts.

    A resume that is refused before has changed nothing.
    """

    def setup(self, trainer: Trainer, lit: LitVAE, stage: str) -> None:
        pass

    def on_train_start(self, trainer: Trainer, lit: LitVAE) -> None:
        path = Path(trainer.log_dir) / self.config_filename  # log_dir: all processes must ask for it
        runs.write_atomically(path, self.parser.dump(self.config, skip_unset=False).encode())

    def on_save_checkpoint(self, trainer: Trainer, lit: LitVAE, checkpoint: dict[str, Any]) -> None:
        options = self.config.trainer.as_dict(), self.config.init_from
        checkpoint["settings"] = runs.settings_to_save(checkpoint, *options)


class TrainCLI(LightningCLI):
    """`python3 train.py`: model, data, Trainer and run folder, from the command line and YAML files.

    Args:
        data_class: the base of all data modules.
        datasets: the data modules by name.
    """

    def __init__(self, data_class: type[LightningDataModule], datasets: Mapping[str, type], args: ArgsType = None):
        self.datasets = datasets
        self.ckpt_path: Path | None = None
        self.epochs_before = 0
        super().__init__(
            LitVAE,
            data_class,
            subclass_mode_data=True,
            trainer_defaults={
                "max_epochs": 50,
                "num_sanity_val_steps": 0,  # it would count as a validation
                "enable_model_summary": False,
                "log_every_n_steps": 1,  # counted in blocks
                "devices": 1,  # more of them are slower for models this small
                "use_distributed_sampler": False,  # the data modules share their images out themselves
            },
            save_config_callback=SaveSettings,
            parser_class=CommandLineParser,
            parser_kwargs={"description": "Train a variational auto-encoder."},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # it would write class paths into the checkpoint
            run=False,
            args=args,
        )

    def add_core_arguments_to_parser(self, parser: CommandLineParser) -> None:
        parser.add_class_arguments(LitVAE, "model", fail_untyped=False, skip={"seed"})
        parser.add_subclass_arguments(
            self.datamodule_class,
            "data",
            fail_untyped=False,
            required=True,
            skip={"seed"},  # for model and data it is that of seed_everything
            metavar=f"{{{','.join(self.datasets)}}}",
            help="The data set; --data.help NAME lists its options, which follow --data NAME.",
        )
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})

    def add_default_arguments_to_parser(self, parser: CommandLineParser) -> None:
        parser.add_argument("--seed_everything", type=SEED, default=0, help="Seed of weights, order and noise.")

    def add_arguments_to_parser(self, parser: CommandLineParser) -> None:
        parser.datasets, parser.refused = self.datasets, REFUSED
        resume = "Resume: a checkpoint, the folder or the name of a run, or last, the newest run."
        parser.add_argument("--ckpt_path", type=str | None, help=resume)
        parser.add_argument(
            "--run_name", type=str | None, help="The run's folder in lightning_logs; default: version_N."
        )
        parser.add_argument(
            "--init_from", type=str | None, help="A checkpoint, or a run, whose weights a new run starts with."
        )
        parser.add_argument("--import", action=ImportOption)
        parser.set_defaults({"data": next(iter(self.datasets))})
        parser.link_arguments("data", "model.image_shape", lambda data: data.image_shape, apply_on="instantiate")
        for name in ("palette", "num_classes"):
            parser.link_arguments("data", f"model.{name}", partial(self.from_data, name), apply_on="instantiate")
        for action in parser._actions + parser._links_group._group_actions:
            if action.dest.startswith("trainer") or action in parser._links_group._group_actions:
                action.is_hidden = True  # help=SUPPRESS would leave it out of config.yaml as well
        parser.add_argument("--trainer.help", action=TrainerHelp, help="List the options of Lightning's Trainer.")

    def from_data(self, option: str, data: LightningDataModule) -> Any:
        """An option of the model that only the images tell, where its network or its likelihood asks for it."""
        unused = unused_options(self.config.model.network, self.config.model.likelihood)
        return None if option in unused else getattr(data, option)()

    def parse_arguments(self, parser: CommandLineParser, args: ArgsType) -> None:
        """Parse; to resume a run, once more on top of the settings that its checkpoint holds."""
        self.parse(parser, args)
        self.run_name = self.config.run_name
        if self.run_name is not None:
            runs.run_folder(self.run_name)
        if self.config.ckpt_path is not None:
            named = self.config.ckpt_path, self.run_name
            self.ckpt_path, self.checkpoint, settings = runs.checkpoint_to_resume(*named, self.datasets)
            begun = self.parse_settings(parser, settings)
            self.parse(parser, args, begun.clone())
            self.check_kept(begun)
            self.warn_of_left_out(parser.get_defaults().trainer)
        self.config.ckpt_path = self.config.run_name = None  # config.yaml can begin a new run

    def parse_settings(self, parser: CommandLineParser, settings: Mapping[str, Any]) -> Namespace:
        """The settings of a checkpoint as the command line's: an untrusted file, whose types are checked."""
        if unknown := settings["trainer"].keys() - DEFAULTS.keys():
            raise runs.RunError(f"{self.ckpt_path}: train.py has no option --trainer.{min(unknown)}")
        try:
            parser.exit_on_error = False
            return parser.parse_object(settings)
        except (ArgumentError, TypeError, ValueError) as error:
            raise runs.RunError(f"{self.ckpt_path}: {parser.explain(str(error))}") from error
        finally:
            parser.exit_on_error = True

    def check_kept(self, begun: Namespace) -> None:
        """See that a run keeps its model, its data but the folder, and its seed: the Trainer's options may change."""
        then, now = kept_options(begun), kept_options(self.config)
        for option, value in now.items():
            if value != then.get(option):
                raise runs.RunError(
                    f"{option} is {value}, but the run began with {then.get(option)}.\n"
                    "A run keeps its model, data and seed; begin a new one, without --ckpt_path."
                )

    def warn_of_left_out(self, defaults: Namespace) -> None:
        """Say which options of the run this resume does without."""
        names = [name for name in DEFAULTS if name in self.checkpoint["settings"]["left_out"]]
        missing = [f"--trainer.{name}" for name in names if self.config.trainer[name] == defaults[name]]
        if missing:
            reason = "a file of a run names no code: to have them again, repeat them"
            warnings.warn(
                f"{self.ckpt_path}: left out {', '.join(missing)}; {reason}", runs.SettingsLeftOut, stacklevel=1
            )
        if not self.checkpoint["settings"]["trainer"]:
            missing_all = "holds no options of the Trainer: those that are not repeated take their defaults"
            warnings.warn(f"{self.ckpt_path} {missing_all}", runs.SettingsLeftOut, stacklevel=1)

    def parse(self, parser: CommandLineParser, args: ArgsType, base: Namespace | None = None) -> None:
        parse = parser.parse_object if isinstance(args, dict | Namespace) else parser.parse_args
        self.config = parse(args, namespace=base)
        name = self.config.data.class_path.rpartition(".")[2]
        if name not in self.datasets:
            parser.error(unknown_dataset(name, self.datasets))
        for group in ("model", "trainer"):
            if not isinstance(self.config[group], Namespace):
                parser.error(f"--{group}: expected options with values, got {self.config[group]}")
        for option in AT_LEAST_ONE:
            if self.config.trainer[option] == 0:
                parser.error(f"--trainer.{option}: expected a whole number of at least 1, got 0")
        max_time = self.config.trainer.max_time
        if max_time is not None and Timer(max_time).time_remaining() <= 0:
            parser.error(f"--trainer.max_time: expected more than no time, got {max_time}")
        for option, reason in REFUSED.items():
            if self.config.trainer[option] not in (None, self.trainer_defaults.get(option, DEFAULTS[option].default)):
                parser.error(f"--trainer.{option}: {reason}")
        try:
            parser.dump(self.config, skip_unset=False)
        except (TypeError, ValueError):  # jsonargparse does not read what it would write
            parser.error(
                "--trainer: config.yaml cannot hold these callbacks, plugins or profiler; use them from Python"
            )

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:  # the last ones of absurd sizes
            self.parser.error(str(error.__cause__ or error))  # the cause is of what was asked of the data

    def instantiate_trainer(self) -> Trainer:
        options = self.config_init.trainer
        own = options.callbacks if isinstance(options.callbacks, list) else [options.callbacks]
        callbacks = [ExactResume(), GracefulShutdown(), Throughput(), TensorBoardImages()]
        if options.enable_checkpointing is not False:
            callbacks += [BestCheckpoint(), LastCheckpoint()]
        if options.enable_progress_bar is not False and not any(isinstance(each, Progress) for each in own):
            callbacks.append(progress(refresh_rate=2))  # of blocks
        self.trainer_defaults["callbacks"] = callbacks
        resumed = runs.run_of(self.ckpt_path) if self.ckpt_path and runs.is_in_run(self.ckpt_path) else None
        plugins = options.plugins if isinstance(options.plugins, list) else [options.plugins]
        self.checkpoint_io = AtomicCheckpointIO()
        plugins = [self.checkpoint_io, *(plugin for plugin in plugins if plugin)]
        own_loggers = options.logger if isinstance(options.logger, list) else [options.logger]
        if any(isinstance(logger, bool) for logger in own_loggers):
            self.parser.error(
                "--trainer.logger: a run always writes into its folder, others are added to it; "
                "to try without, --trainer.fast_dev_run true"
            )
        loggers = [RunLogger(self.run_name, resumed), *(logger for logger in own_loggers if logger)]
        try:
            trainer = super().instantiate_trainer(logger=loggers, plugins=plugins)
        except (TypeError, ImportError) as error:  # a value of accelerator, devices or precision
            self.parser.error(f"--trainer: {error}")
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            self.parser.error(
                f"--trainer.strategy: the processes of {options.strategy} train a copy of the run, which is lost; "
                "for several devices, --trainer.strategy ddp"
            )
        if trainer.fast_dev_run:  # which counts batches, here blocks, as steps
            trainer.fit_loop.epoch_loop.max_steps = -1
        return trainer

    def fit(self) -> None:
        """Train. What can be wrong is checked first, so that then nothing is written."""
        for callback in self.trainer.callbacks:
            if isinstance(callback, BatchSizeFinder | LearningRateFinder):
                raise runs.RunError(
                    f"--trainer.callbacks {type(callback).__name__}: changes a hyper-parameter, which a run keeps; "
                    "choose --data.batch_size and --model.learning_rate"
                )
            is_own = isinstance(callback, ModelCheckpoint) and not isinstance(callback, BestCheckpoint | LastCheckpoint)
            if is_own and not callback.dirpath and (callback.save_last or callback.filename in ("best", "last")):
                raise runs.RunError(
                    "--trainer.callbacks ModelCheckpoint: a run has its own best.ckpt and last.ckpt; "
                    "choose another filename or dirpath, and no save_last"
                )
        if self.ckpt_path:
            begun = self.checkpoint["settings"]["model"]
            for name in runs.FROM_DATA:
                if self.model.hparams[name] != begun[name]:
                    raise runs.RunError(f"the data has changed since the run began: its {name} is another")
            with runs.as_untrusted(self.ckpt_path):
                restored = built_state(self.checkpoint, self.trainer, self.model)
            runs.check_whole_epoch(self.checkpoint, self.ckpt_path, self.config.trainer.as_dict())
            self.checkpoint_io.restored = restored
            self.epochs_before = self.checkpoint["epoch"] + 1
            del self.checkpoint
        elif self.config.init_from is not None:
            runs.init_weights(self.model, self.datamodule, runs.find_checkpoint(self.config.init_from))
        # Lightning sets it when it is imported. With it torch's optimisers look for a driver at each step: 0.3 ms.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        try:
            self.open_loggers()
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.ckpt_path, weights_only=True)
        except (OSError, torch.OutOfMemoryError) as error:
            trainer = self.trainer  # the first process knows the folder
            began = trainer.global_step and trainer.is_global_zero and not trainer.fast_dev_run
            advice = f"\n{runs.how_to_resume(Path(trainer.logger.log_dir))}" if began else ""
            if isinstance(error, OSError) and error.errno in DISK_FULL and not error.filename:
                error.filename = f"a log in {' or '.join(filter(None, (each.save_dir for each in trainer.loggers)))}"
            reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
            raise runs.RunError(f"{reason}{advice}") from error
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            modules = [frame.f_globals["__name__"] for frame, _ in walk_tb(error.__traceback__)]
            caller = [module for module in modules if not module.startswith("torch.")][-1]
            if caller.startswith(("pytorch_lightning.", "lightning_fabric.")):
                raise runs.RunError(str(error).strip() or repr(error)) from error
            raise
        finally:
            if not self.trainer.global_step:  # the Trainer refuses some options once the run's folder is made
                self.trainer.logger.discard()
        if not self.trainer.global_step:
            raise runs.RunError("no training step was taken: --trainer.max_time or a callback ended it before")

    def open_loggers(self) -> None:
        """Open the loggers beside the run's own; those that write into a folder name it like the run by default.

        Raises:
            RunError: one of them cannot be opened.
        """
        for logger in self.trainer.loggers[1:]:
            if isinstance(logger, CSVLogger | TensorBoardLogger) and logger.name == "lightning_logs":
                logger._name = self.trainer.logger.version
            try:
                _ = logger.experiment
            except Exception as error:  # whatever a server that does not answer makes of its client
                raise runs.RunError(f"--trainer.logger {type(logger).__name__}: {error}") from error

    def trained(self, seconds: float) -> str:
        """What `fit` has trained, in words; an epoch counts once it is whole."""
        epochs = self.whole_epochs
        new = epochs - self.epochs_before
        if self.epochs_before and not (new or self.in_epoch):
            by, _ = self.ended_by()
            held = {"max_epochs": epochs, "max_steps": self.trainer.global_step}
            if by in held:
                unit = by.removeprefix("max_")
                return f"nothing: the run has its {held[by]} {unit}; --trainer.{by} {2 * held[by]} goes further"
            return f"nothing: the run has {epochs} epochs, and {by} ends it there"
        minutes, seconds = divmod(round(seconds), 60)
        of_all = f", {epochs} in all," if self.epochs_before else ""
        return f"{new} epoch{'s' * (new != 1)}{of_all} in {minutes} min {seconds} s"

    @property
    def whole_epochs(self) -> int:
        """How many epochs the run has."""
        return max(self.epochs_before, self.trainer.current_epoch - self.in_epoch)

    @property
    def in_epoch(self) -> bool:
        """Whether training ended within an epoch."""
        return bool(not self.trainer.fast_dev_run and self.model.epoch_steps and not self.model.is_whole_epoch)

    def ended_by(self) -> tuple[str, str]:
        """What ended training, an option of the Trainer or a callback, and the reason that it gives."""
        trainer = self.trainer
        if 0 <= trainer.max_epochs <= self.whole_epochs:
            return "max_epochs", ""
        if 0 <= trainer.max_steps <= trainer.global_step:
            return "max_steps", ""
        for callback in trainer.callbacks:
            if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
                return "max_time" if self.config.trainer.max_time else type(callback).__name__, ""
            if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
                reason = callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
                return type(callback).__name__, f": {reason}"
        return "a callback", ""

    def stopped(self) -> str | None:
        """What ended training before the last of its epochs, and where, in words; None if nothing did."""
        (by, reason), trainer, epochs = self.ended_by(), self.trainer, self.whole_epochs
        if by == "max_epochs":
            return None
        if not self.in_epoch:
            return (
                f"by {by} after epoch {epochs}{f' of {trainer.max_epochs}' if trainer.max_epochs > 0 else ''}{reason}"
            )
        saved = f"last.ckpt holds {epochs} whole epoch{'s' * (epochs > 1)}"
        if not runs.last_checkpoint(Path(trainer.logger.log_dir)).exists():
            saved = "there is no checkpoint to resume from"
        steps = f"{self.model.epoch_steps} of {self.model.steps_per_epoch} steps"
        return f"by {by} in epoch {epochs + 1} after {steps}; {saved}{reason}"
