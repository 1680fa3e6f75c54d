"""Run folders: a new one, the newest one, its checkpoint read safely, and what is written into it.

A run lives in `lightning_logs/version_N/` (or `NAME/`): `config.yaml`, event files, `checkpoints/best.ckpt` (the
highest val/elbo) and `checkpoints/last.ckpt` (the last epoch).
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torchvision.io import decode_image

from vae.lit_vae import LitVAE
from vae.model import VAE

ROOT = Path("lightning_logs")
MOST_PICTURES = 100_000  # in a figure
MOST_PIXELS = 2**28  # in a film: 800 MB


class RunError(Exception):
    """A run that cannot be made, found or read; the message says what was expected and what to do."""


class Interrupted(RunError):
    """A signal stopped the run; the message says how to go on.

    Args:
        signum: the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


def new_run(name: str | None = None) -> Path:
    """A new folder for a run, this process's own even where several start at once.

    Raises:
        RunError: a run of that name exists, or it is no name.
        OSError: the folder cannot be made.
    """
    ROOT.mkdir(parents=True, exist_ok=True)
    for candidate in [named(name)] if name else (ROOT / f"version_{n}" for n in count()):
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            continue
    raise RunError(
        f"{ROOT / name} exists already.\n"
        f"Choose another --run_name, or go on with it: python3 train.py --run_name {name} --ckpt_path last"
    )


def newest_run(name: str | None = None) -> Path:
    """The run whose checkpoint is the newest, or the one of that name.

    Raises:
        RunError: there is none with a checkpoint.
    """
    runs = [named(name)] if name else [*ROOT.iterdir()] if ROOT.exists() else []
    found = [path for run in runs for path in (best_of(run), last_of(run)) if path.is_file()]
    if not found:
        raise RunError(
            f"There is no checkpoint in {ROOT / (name or '')}.\n"
            "Train a model first, python3 train.py, or name a checkpoint, --ckpt_path PATH"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parents[1]


def best_of(run: Path) -> Path:
    """The checkpoint of the epoch with the highest val/elbo."""
    return run / "checkpoints" / "best.ckpt"


def last_of(run: Path) -> Path:
    """The checkpoint of the last epoch."""
    return run / "checkpoints" / "last.ckpt"


def named(name: str) -> Path:
    """The folder of the run of that name.

    Raises:
        RunError: it is no name of a folder.
    """
    if Path(name).name != name:
        raise RunError(f"A run's name is that of a folder in {ROOT}, not a path; got {name}")
    return ROOT / name


def find_checkpoint(ckpt_path: str | None = None, name: str | None = None) -> Path:
    """That checkpoint, or where none is named that of the newest run, or of the run of that name.

    It is the run's `best.ckpt`, or its `last.ckpt` if it had no validation.

    Raises:
        RunError: there is none.
    """
    if ckpt_path is not None:
        return Path(ckpt_path)
    run = newest_run(name)
    return best_of(run) if best_of(run).exists() else last_of(run)


def to_resume(ckpt_path: str, name: str | None) -> Path:
    """The checkpoint to go on from: that path, or for `last` the last.ckpt of the newest run or the one of that name.

    Raises:
        RunError: it is missing or damaged, or there is no config.yaml in its run's folder.
    """
    path = last_of(newest_run(name)) if ckpt_path == "last" else Path(ckpt_path)
    read(path)
    if not (run_of(path) / "config.yaml").is_file():
        raise RunError(f"{run_of(path) / 'config.yaml'} is missing: a run can go on only in its own, whole folder.")
    return path


def check_settings(ckpt_path: Path, datasets: Mapping[str, type]) -> None:
    """See that the config.yaml of a run names no code, before any of it is followed: it may be a stranger's.

    Args:
        datasets: the data modules by name.

    Raises:
        RunError: it names a class that is no data module, or is no such file.
    """
    path = run_of(ckpt_path) / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text())
        data, known = config["data"], {f"{kind.__module__.partition('.')[0]}.{name}" for name, kind in datasets.items()}
        words = all(is_plain(value, r"[\w:-]*") for value in config["trainer"].values())  # "a.b" would be imported
        plain = all(is_plain(value, r".*") for part in (config["model"], data["init_args"]) for value in part.values())
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is not a file that this project's train.py wrote.") from error
    if not (plain and words and data["class_path"] in known):
        raise RunError(
            f"{path} names code that would be run, or more than plain values.\n"
            f"If it is yours, say so: python3 train.py --config {path} --ckpt_path {ckpt_path}"
        )


def is_plain(value: Any, text: str) -> bool:
    """Whether a setting is a number, truth, nothing, text of that form, or several of these."""
    some = value if isinstance(value, list) else [value]
    return all(
        re.fullmatch(text, one) is not None if isinstance(one, str) else one is None or isinstance(one, int | float)
        for one in some
    )


def how_to_go_on(run: Path) -> str:
    """What to do when a run came to a stop before its end."""
    if not run.exists():
        return f"The run's folder {run} has vanished, and with it what there was to go on with: begin a new run."
    if not last_of(run).exists():
        return "That was before its first checkpoint: there is nothing to go on with."
    return f"Go on with it: python3 train.py --ckpt_path {last_of(run)}"


def run_of(ckpt_path: Path) -> Path:
    """The folder of the run that a checkpoint belongs to; of one that was copied elsewhere, the folder it is in."""
    return ckpt_path.parents[1] if ckpt_path.parent.name == "checkpoints" else ckpt_path.parent


def read(ckpt_path: Path) -> Any:
    """The plain values and tensors in a checkpoint; nothing in it is executed.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return torch.load(ckpt_path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(
            f"There is no checkpoint {ckpt_path}: name one that exists, or train first, python3 train.py"
        ) from None
    except Exception as error:  # whatever the bytes of a file that is no checkpoint make of the reader
        raise RunError(f"{ckpt_path} cannot be read as a checkpoint: it is truncated, or something else.") from error


def load(ckpt_path: Path, datasets: Mapping[str, type], data_dir: str | None = None) -> tuple[LitVAE, Any]:
    """The model and the data module that a checkpoint was trained with, rebuilt from it alone.

    Args:
        datasets: the data modules by name, among which that of the checkpoint is looked up.
        data_dir: where the data is now, if it is not where it was.

    Raises:
        RunError: the file is missing, damaged or not one of this project's.
    """
    checkpoint = read(ckpt_path)
    try:
        options = dict(checkpoint["datamodule_hyper_parameters"])
        dataset = datasets[options.pop("dataset")]
        with torch.device("meta"):  # where no size takes memory: a stranger's file may ask for any
            shapes = {
                name: value.shape for name, value in LitVAE(**checkpoint["hyper_parameters"]).state_dict().items()
            }
        weights = checkpoint["state_dict"]
        if shapes != {name: value.shape for name, value in weights.items() if value.is_contiguous()}:
            raise ValueError("the weights are not of the sizes that the hyper-parameters tell")
        lit = LitVAE(**checkpoint["hyper_parameters"])
        lit.load_state_dict(weights)
        data = dataset(**options | ({"data_dir": data_dir} if data_dir else {}))
        if data.image_shape != lit.vae.image_shape:
            raise ValueError("model and data do not fit each other")
    except Exception as error:  # whatever the contents of a foreign file make of the constructors
        raise RunError(f"{ckpt_path} is not a checkpoint that this project's train.py wrote.") from error
    return lit.eval(), data


def describe(ckpt_path: Path, datasets: Mapping[str, type]) -> dict[str, str]:
    """What a checkpoint is, without its data: what it was trained on and how, its layers, its best, what made it.

    Raises:
        RunError: as `load`.
    """
    lit, data = load(ckpt_path, datasets)
    checkpoint = read(ckpt_path)
    hparams = {"model": dict(lit.hparams), "data": dict(data.hparams)}
    palette = hparams["model"].pop("palette", None)
    layers = [(name, layer) for name, layer in lit.vae.named_modules() if [*layer.parameters(recurse=False)]]
    counts = {name: sum(p.numel() for p in layer.parameters(recurse=False)) for name, layer in layers}
    best = [state.get("best_model_score") for state in checkpoint["callbacks"].values() if state.get("monitor")]
    return {
        "checkpoint": str(ckpt_path),
        "data set": hparams["data"].pop("dataset"),
        "split": ", ".join(f"{size:,} {split}" for split, size in checkpoint[type(data).__name__].items()),
        "measure": lit.vae.likelihood.measure(data.binary),
        "epochs": str(checkpoint["epoch"] + 1),
        "best val/elbo": f"{best[0]:.4f} nats per picture" if best and best[0] is not None else "none: no validation",
        **{f"--{group}.{name}": str(value) for group in hparams for name, value in hparams[group].items()},
        **({"palette": f"{len(palette)} colours"} if palette else {}),
        **{name: f"{counts[name]:,} parameters, {layer}" for name, layer in layers},
        "in all": f"{sum(counts.values()):,} parameters",
        **{name: str(version) for name, version in checkpoint["versions"].items()},
    }


def history(run: Path) -> dict[str, dict[int, float]]:
    """The curves that a run told TensorBoard: of each one its value after each epoch, counted from 1."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # no one else needs it

    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    curves = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    epochs = {step: round(epoch) + 1 for step, epoch in curves.pop("epoch", {}).items()}
    return {
        tag: {epochs[step]: curve[step] for step in sorted(curve) if step in epochs} for tag, curve in curves.items()
    }


def log_sizes(run: Path) -> dict[str, int]:
    """The bytes in each of a run's event files, which only ever grow."""
    return {path.name: path.stat().st_size for path in run.glob("events.out.tfevents.*")}


def cut_log(run: Path, sizes: Mapping[str, int]) -> None:
    """Make a run's log what it was when it had these sizes."""
    found = log_sizes(run)
    if not sizes.keys() <= found.keys():
        return  # they are another log's
    for name, size in found.items():
        if name not in sizes:
            (run / name).unlink()
        elif size > sizes[name]:
            os.truncate(run / name, sizes[name])


def frame_of(run: Path, epoch: int) -> Path:
    """Where the frame of a film that shows that epoch is kept."""
    return run / "frames" / f"{epoch:06}.png"


def frames(run: Path) -> dict[int, Tensor]:
    """The frames that training kept for a film, uint8 [3, H, W], by epoch.

    Raises:
        RunError: one of them cannot be read.
    """
    pixels, found = 0, {}
    for path in sorted((run / "frames").glob("*.png")):
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                pixels += prod(picture.size)
            if pixels > MOST_PIXELS:
                raise ValueError("more than memory should hold")
            found[int(path.stem)] = decode_image(str(path), "RGB")
        except Exception as error:  # whatever the bytes of a file that is no picture make of the reader
            raise RunError(f"{path} is damaged, or too large for a film: delete it, or train anew.") from error
    return found


def material(
    ckpt_path: Path, vae: VAE, data: Any, split: str, names: Sequence[str] | None
) -> dict[str, Callable[[], Any]]:
    """What a figure may show, by the name it has there, and how to get it: only what is asked for is read.

    Args:
        ckpt_path: the checkpoint that the model is from.
        vae: the model.
        data: its data module.
        split: the split whose pictures are shown.
        names: the runs whose histories are compared; by default that of the checkpoint.

    Raises:
        RunError: one of the runs is not there.
    """
    run = run_of(ckpt_path)
    compared = [newest_run(name) for name in names] if names else [run]
    return {
        "vae": lambda: vae,
        "images": lambda: data.pictures(split, MOST_PICTURES).to(vae.origin.device),
        "labels": lambda: data.labels(split, MOST_PICTURES),
        "classes": lambda: data.classes,
        "history": lambda: history(run),
        "histories": lambda: {run.name: history(run) for run in compared},
        "frames": lambda: frames(run),
    }


@rank_zero_only
def report(ckpt_path: Path, metrics: Mapping[str, Any]) -> Path:
    """Keep what a test of a checkpoint found: in its run's test_metrics.json, and where there is one in TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter  # a second to import

    run, step = run_of(ckpt_path), read(ckpt_path)["global_step"]
    if metrics["split"] == "test" and [*run.glob("events.out.tfevents.*")]:
        with SummaryWriter(run / "test") as writer:  # in a folder of its own: the run's own file may yet grow
            for name in ("elbo", "log_marginal"):
                writer.add_scalar(f"test/{name}", metrics[name], step)
    path = run / "test_metrics.json"
    write(path, json.dumps(metrics, indent=2).encode())
    return path


def check_unchanged(ckpt_path: Path, lit: LitVAE, data: Any, datasets: Mapping[str, type]) -> None:
    """See that a run goes on with the hyper-parameters it began with; only where the data is may have changed.

    Raises:
        RunError: one of them differs, or the file is damaged or not one of this project's.
    """
    load(ckpt_path, datasets)
    checkpoint = read(ckpt_path)
    begun = {"model": checkpoint["hyper_parameters"], "data": checkpoint["datamodule_hyper_parameters"]}
    for group, now in (("model", lit.hparams), ("data", data.hparams)):
        for name in (name for name in now if name != "data_dir"):
            if name not in begun[group] or now[name] != begun[group][name]:
                raise RunError(
                    f"--{group}.{name} is {now[name]}, but the run began with {begun[group].get(name)}.\n"
                    "A run goes on as it began; begin a new one, without --ckpt_path."
                )
    sizes = checkpoint.get("log", {})
    log_fits = isinstance(sizes, dict) and all(isinstance(size, int) and size >= 0 for size in sizes.values())
    if not (log_fits and fits(checkpoint.get("optimizer_states"), lit)):
        raise RunError(f"{ckpt_path} is not a checkpoint that this project's train.py wrote.")


def fits(states: Any, lit: LitVAE) -> bool:
    """Whether an optimiser's state is of its kind and of the model's sizes: the fused kernels would not ask."""
    if "fused" not in signature(lit.optimizer).parameters:
        return True  # it may keep rows and columns, or a history
    one = torch.zeros(1, requires_grad=True)
    one.grad = torch.zeros(1)
    (optimizer := lit.optimizer([one])).step()
    names, shapes = optimizer.state[one].keys(), [parameter.shape for parameter in lit.parameters()]
    try:
        return all(
            state.keys() == names
            and all(
                value.shape == shapes[place] and value.is_contiguous()
                for value in state.values()
                if isinstance(value, Tensor) and value.ndim
            )
            for place, state in states[0]["state"].items()
        )
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError):
        return False


@rank_zero_only
def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and see it on the disk: also after a power cut it is the old one or the new.

    Its folder is made where it is missing, but not the one around it: a run's folder that vanished stays so.
    """
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
