"""`train.py`: a LightningCLI around LitVAE, the data modules and the Trainer."""

from collections.abc import Mapping
from pathlib import Path
from traceback import extract_tb

from jsonargparse.typing import restricted_number_type
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.cli import ArgsType, LightningCLI

from vae import runs
from vae.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    GracefulShutdown,
    LastCheckpoint,
    ProgressBar,
    RunLogger,
    TensorBoardImages,
    Throughput,
    TruncateLogOnResume,
)
from vae.cli.parser import CommandLineParser
from vae.lit_vae import LitVAE

SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])


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
                "use_distributed_sampler": False,  # the data modules share their images out themselves
            },
            save_config_kwargs={"overwrite": True},  # a resumed run writes it again
            parser_class=CommandLineParser,
            parser_kwargs={"description": "Train a variational auto-encoder."},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # it would write class paths into the checkpoint
            run=False,
            args=args,
        )

    def add_default_arguments_to_parser(self, parser: CommandLineParser) -> None:
        parser.add_argument("--seed_everything", type=SEED, default=0, help="Seed of weights, order and noise.")

    def add_arguments_to_parser(self, parser: CommandLineParser) -> None:
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
        """The colours of the training images, for the one likelihood that asks for them."""
        if self.config.model.likelihood != "categorical":
            return None
        data.prepare_data()
        data.setup()
        return data.palette()

    def parse_arguments(self, parser: CommandLineParser, args: ArgsType) -> None:
        """Parse; where a run is gone on with, once more with that run's own config.yaml as the base."""
        self.parse(parser, args)
        self.run_name = self.config.run_name
        if self.config.ckpt_path:
            self.ckpt_path = runs.checkpoint_to_resume(self.config.ckpt_path, self.run_name)
            settings = runs.run_of(self.ckpt_path) / "config.yaml"
            if not any(settings.samefile(str(named)) for named in self.config.config or ()):
                runs.check_settings(self.ckpt_path, self.datasets)
            parser.default_config_files = [str(settings)]
            self.parse(parser, args)
        self.config.ckpt_path = self.config.run_name = None  # what is saved can be begun anew

    def parse(self, parser: CommandLineParser, args: ArgsType) -> None:
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
        callbacks = [GracefulShutdown(), TruncateLogOnResume(), Throughput(), TensorBoardImages()]
        if options.enable_checkpointing is not False:
            callbacks += [BestCheckpoint(), LastCheckpoint()]
        if options.enable_progress_bar is not False:
            callbacks.append(ProgressBar(refresh_rate=20))  # at every batch it would cost a step's time a twentieth
        self.trainer_defaults["callbacks"] = callbacks
        resumed = runs.run_of(self.ckpt_path) if self.ckpt_path else None
        plugins = [AtomicCheckpointIO(), *(options.plugins or ())]
        return super().instantiate_trainer(logger=RunLogger(self.run_name, resumed), plugins=plugins)

    def fit(self) -> None:
        """Train. What can be wrong is looked at first, so that then nothing is written."""
        if self.ckpt_path:
            runs.check_hyperparameters(self.ckpt_path, self.model, self.datamodule, self.datasets)
            begun, now = self.parser.get_defaults().trainer.max_epochs, self.config.trainer.max_epochs
            if self.model.hparams.lr_schedule == "cosine" and begun != now:
                raise runs.RunError(
                    f"A cosine schedule ends with its run, here after {begun} epochs; it cannot go on to {now}."
                )
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.ckpt_path, weights_only=True)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if self.ckpt_path and self.trainer.global_step <= runs.read_checkpoint(self.ckpt_path)["global_step"]:
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
            raise runs.RunError(f"{error}\n{runs.how_to_resume(run)}") from error
