"""`test.py` and `visualizations.py`: command lines from a function's signature, their Trainer, tables and figures."""

import errno
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import Parameter, signature
from itertools import pairwise
from math import isfinite, prod
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse.typing import restricted_number_type
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.table import Table
from torch import Tensor

from vae.callbacks import progress
from vae.cli.output import print_table
from vae.cli.own_parts import ImportOption
from vae.cli.parser import CommandLineParser
from vae.evaluation import estimator
from vae.figures import CAN_SHOW_SAMPLES, NotApplicable, encode_images, render
from vae.lit_vae import LitVAE
from vae.marginal import MAX_QUADRATURE_DIM, bidirectional_bounds
from vae.metrics import MAX_UNRELIABLE, as_table, as_written
from vae.probe import MAX_IMAGES, probe_codes
from vae.runs import MAX_VALUES, RunError, check_file_name, metrics_path, save_test_metrics

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
MAY_BE_UNDEFINED = {"log_marginal_stderr", "log_marginal_error", "psnr"}  # the last where all is reconstructed exactly
IMAGES_AT_ONCE = {"quadrature": 1_000, "ais": 50, "importance": None}
DEFAULT_SAMPLES = 100
SIMULATED_IMAGES = 100  # of the model, on which the bounds by annealing are compared
LOWER_BOUND = (
    "log p(x) is too low by an unknown amount: for {share:.0%} of the images a few samples carry all the weight. "
    "--estimator {better} comes nearer."
)
DECODED_AT_ONCE = 500  # samples of the prior: a categorical p(x|z) takes half a megabyte an image
Resolution = restricted_number_type("Resolution", int, [(">=", 10), ("<=", 1_000)], docstring="10 to 1,000")


def parse_sample_counts(text: str | tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of samples, rising: (100,) of "100", (1, 10, 100) of "1,10,100".

    Raises:
        ArgumentTypeError: it is something else.
    """
    if isinstance(text, tuple):
        return text
    counts = tuple(int(part) if part.isdecimal() else 0 for part in text.split(","))
    if min(counts) < 1 or any(low >= high for low, high in pairwise(counts)):
        raise ArgumentTypeError(f"expected a number of at least 1, or rising ones as in 1,10,100; got {text}")
    return counts


TEST_OPTIONS = {  # of test.py, whose type does not suffice
    "num_samples": {
        "type": parse_sample_counts,
        "default": None,
        "help": f"Samples of the estimator importance, by default {DEFAULT_SAMPLES}; 1,10,100 gives each its bound.",
    },
    "info": {"action": "store_true", "help": "Only tell what the model is; needs no data."},
    "probe": {"action": "store_true", "help": "Also fit classifiers of the labels to the codes."},
}


def run_command(function: Callable, *optional: Callable, **options) -> None:
    """Run a function as a command line, which its parameters, their types and its docstring make.

    Args:
        function: what is run.
        optional: functions whose keyword-only parameters the command line has too; it gets them as keywords.
        options: the arguments of add_argument for parameters whose type does not suffice.
    """
    parser = CommandLineParser(description=str(function.__doc__).splitlines()[0])
    parser.add_function_arguments(function, as_group=False, skip=set(options))
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    for other in optional:
        material = {
            name for name, parameter in signature(other).parameters.items() if parameter.kind != Parameter.KEYWORD_ONLY
        }
        try:
            parser.add_function_arguments(other, skip=material)
        except ValueError as error:  # an option of that name exists
            raise RunError(f"the options of {other.__name__}: {error}") from error
    parser.add_argument("--import", action=ImportOption)
    function(**parser.parse_args())


def evaluation_trainer(**options) -> Trainer:
    """A Trainer that places and runs a model, with its progress on the screen, and writes nothing."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    try:
        return Trainer(**silent, **options, use_distributed_sampler=False, callbacks=[progress()])
    except (ValueError, ModuleNotFoundError) as error:
        raise MisconfigurationException(f"--accelerator {options['accelerator']}: {error}") from error


def check_request(data: Any, split: str, save: str | None, probe: bool) -> None:
    """See that what is asked of a test can be had, before it takes its time.

    Args:
        data: the data module.
        split: the split that is tested.
        save: the file for the codes.
        probe: whether classifiers are fitted.

    Raises:
        RunError: the file could not be written, or there are no labels to classify.
    """
    if save:
        check_file_name(Path(save))
    if probe:
        labels = data.labels("train", num_probed(data)), data.labels(split, 1)
        if labels[0] is None or labels[1] is None or len(labels[0].unique()) < 2:
            raise RunError(f"--probe needs labels of two classes at least, which {data.name} does not have.")


def num_probed(data: Any) -> int:
    """How many training images a probe is fitted to: fewer where they are large."""
    return max(1, min(MAX_IMAGES, MAX_VALUES // prod(data.image_shape)))


@torch.no_grad()
def probe_model(lit: LitVAE, data: Any, split: str) -> dict[str, float]:
    """The accuracies of `probe_codes`, of a model that was tested on that split."""
    n = num_probed(data)
    labels, tested = data.labels("train", n), lit.test_columns
    means, _ = encode_images(lit.vae.given(labels), data.images("train", n).to(lit.vae.prior_loc.device))
    return probe_codes(means, labels, tested["mean"], data.labels(split)[tested["index"].long()])


def choose_estimator(
    lit: LitVAE, data: Any, name: str, counts: tuple[int, ...] | None, num_images: int | None
) -> tuple[str, tuple[int, ...]]:
    """Prepare a test with an estimator of log p(x), on a part of the images or on all: its name, and its samples.

    Raises:
        RunError: the model has too many latent variables for it, or it takes no number of samples.
    """
    if counts and name == "auto":
        name = "importance"  # of which a number of samples is
    if counts and name != "importance":
        raise RunError(f"--num_samples is an option of --estimator importance, not of {name}")
    counts = counts or (DEFAULT_SAMPLES,)
    try:
        name, lit.estimator = estimator(name, lit.vae, counts)
    except ValueError as error:
        raise RunError(f"--estimator {error}") from error
    data.test_batch_size, data.num_test_images = IMAGES_AT_ONCE[name], num_images
    return name, counts


def measure_gap(lit: LitVAE) -> float:
    """How far the bounds by annealing are apart on images of the model itself: nats, with twice its standard error."""
    index = torch.arange(SIMULATED_IMAGES, device=lit.vae.prior_loc.device)
    vae = lit.vae.given(index % (lit.vae.num_classes or 1))
    below, above = bidirectional_bounds(vae, index)
    gap = (above - below).mean().clamp(min=0) + 2 * (above - below).std() / len(index) ** 0.5
    return gap.item()


def report(
    found: Mapping[str, float],
    lit: LitVAE,
    data: Any,
    split: str,
    checkpoint: Path,
    estimator: str,
    counts: tuple[int, ...],
) -> None:
    """Print what a test has found as a table, and write it into the run's folder."""
    found = dict(found)
    measure = lit.vae.likelihood.log_prob_kind(data.binary)
    is_sampled = estimator == "importance"
    num_samples = counts[-1] if is_sampled else None
    if estimator == "ais":
        print(f"The error of the estimate: its bounds on {SIMULATED_IMAGES} images of the model ...", file=sys.stderr)
        found["test/log_marginal_error"] = measure_gap(lit)
    metrics = as_written(found, split=split, measure=measure, estimator=estimator, num_samples=num_samples)
    print(checkpoint)
    table = Table("", f"{data.name}, {split}", "")
    for row in as_table(metrics):
        table.add_row(*row)
    print_table(table)
    undefined = {name.removeprefix("test/") for name, value in found.items() if not isfinite(value)}
    if undefined - MAY_BE_UNDEFINED:
        names = ", ".join(sorted(undefined))
        print(f"warning: not finite, and so null in the file: {names}.", file=sys.stderr)
    elif is_sampled and counts[-1] > 1 and found["test/unreliable_images"] > MAX_UNRELIABLE:
        better = "quadrature" if lit.vae.latent_dim <= MAX_QUADRATURE_DIM else "ais"
        print(LOWER_BOUND.format(share=found["test/unreliable_images"], better=better), file=sys.stderr)
    save_metrics(checkpoint, metrics)


def save_metrics(checkpoint: Path, metrics: Mapping[str, Any]) -> None:
    """Write what a test has found into the run's folder, and say so; one that is read-only is tested all the same."""
    try:
        print(f"Written to {save_test_metrics(checkpoint, metrics)}")
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        path = metrics_path(checkpoint, metrics["split"])
        print(f"warning: {path} could not be written: {error.strerror}. The table is all.", file=sys.stderr)


def draw(
    names: Iterable[str], inputs: Mapping[str, Callable], data_error: type[Exception], **options
) -> Iterator[tuple[str, str, bytes]]:
    """Draws figures: the name, the suffix and the content of each; which could not be drawn, and why, is printed.

    Args:
        names: the names in FIGURES.
        inputs: what gets each argument of a figure.
        data_error: what it raises when the images are missing; figures that can do without them are drawn nevertheless.
        options: of `render`.

    Raises:
        RunError, data_error: none could be drawn.
    """
    inputs, drawn, without_data, problem = dict(inputs), 0, [], None
    for name in names:
        try:
            yield name, *render(name, inputs, **options)
            drawn += 1
        except NotApplicable as reason:
            print(f"Not drawn: {reason}", file=sys.stderr)
        except data_error as error:
            problem = error
            inputs |= dict.fromkeys(("images", "labels"), partial(fail, error))  # the others need not load it again
            if name in CAN_SHOW_SAMPLES:
                print(f"{name}: samples from the prior stand in for the images, which are missing", file=sys.stderr)
                yield name, *render(name, inputs | prior_samples(inputs), **options)
                drawn += 1
            else:
                without_data.append(name)
    if not drawn:
        raise problem or RunError("none of the figures could be drawn")
    if without_data:
        print(f"Not drawn: {', '.join(without_data)}: {problem}", file=sys.stderr)


def prior_samples(inputs: Mapping[str, Callable]) -> dict[str, Callable]:
    """In place of images and labels: images decoded from draws from the prior, the same ones each time."""
    vae, generator = inputs["vae"](), torch.Generator().manual_seed(0)
    shown = "samples from the prior"
    source = {part: text for part, text in inputs["source"]().items() if part != "split"} | {"images": shown}

    def images(n: int) -> Tensor:
        z = torch.randn(n, vae.latent_dim, generator=generator).to(vae.prior_loc)
        return torch.cat([vae.generate(some) for some in z.split(DECODED_AT_ONCE)])

    return {
        "images": images,
        "labels": lambda n: None,
        "shown": lambda: shown,
        "source": lambda: source,
    }


def fail(error: Exception, *_: Any) -> NoReturn:
    """Raise that error."""
    raise error
