"""What TensorBoard has of a run: curves, images, histograms, the projector, the hyper-parameters."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from datamodules import DATASETS, ImageDataModule
from vae import runs
from vae.callbacks import keeps_frame
from vae.cli import TrainCLI


def test_tensorboard_has_every_curve_once_an_epoch(events):
    curves = {f"{stage}/{name}" for stage in ("train", "val") for name in ("elbo", "reconstruction", "kl")}
    last = {"learning_rate", "beta", "epoch_seconds", "images_per_second", "images_seen"}
    curves |= {"val/active_units"} | {f"workings/{name}" for name in last}
    for name in curves:
        assert [event.step for event in events.Scalars(name)] == [1, 3, 5, 7, 9], name
    assert set(events.Tags()["scalars"]) == curves | {"workings/epoch", "workings/best_val_elbo"}
    for stage in ("train", "val"):
        elbo, reconstruction, kl = (
            [e.value for e in events.Scalars(f"{stage}/{name}")] for name in ("elbo", "reconstruction", "kl")
        )
        np.testing.assert_allclose(elbo, np.subtract(reconstruction, kl), rtol=1e-5)
        assert max(elbo) < -20
        assert min(kl) > 0
    assert [event.value for event in events.Scalars("workings/learning_rate")] == pytest.approx([1e-3] * 5)
    assert [event.value for event in events.Scalars("workings/images_seen")] == [1197 * epoch for epoch in range(1, 6)]
    rates, times = (events.Scalars(f"workings/{name}") for name in ("images_per_second", "epoch_seconds"))
    for speed, seconds in zip(rates, times, strict=True):
        assert speed.value > 1197 / seconds.value  # without the validation
    best = max(event.value for event in events.Scalars("val/elbo"))
    assert [event.value for event in events.Scalars("workings/best_val_elbo")] == pytest.approx([best])


def test_tensorboard_has_images_and_histograms_after_epochs_1_2_4_and_the_last(events):
    sizes = {
        "samples": (6 * 9 - 1, 6 * 9 - 1),
        "learned_manifold": (80, 80),
        "reconstruction": (5 * 18 - 2, 2 * 10 - 2),
    }
    for name, size in sizes.items():
        shown = events.Images(f"view/{name}")
        assert [event.step for event in shown] == [2, 4, 8, 10]
        for event in shown:
            with Image.open(io.BytesIO(event.encoded_image_string)) as image:
                assert image.size == (event.width, event.height) == size
                pixels = np.asarray(image)
                assert not any((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    for name, count in (("view/kl_per_dimension", 2), ("view/posterior_means", 2 * 300)):
        assert [event.step for event in events.Histograms(name)] == [2, 4, 8, 10]
        assert all(event.histogram_value.num == count for event in events.Histograms(name))
    last, kl = events.Histograms("view/kl_per_dimension")[-1].histogram_value, events.Scalars("val/kl")[-1].value
    assert last.sum == pytest.approx(kl, rel=1e-4)


def test_tensorboard_lays_training_beside_validation(events):
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (category,) = layout.category
    assert category.title == "validation (line) and training (the other edge of the band), nats per image"
    bands = {chart.title: list(chart.margin.series) for chart in category.chart}
    assert [*bands] == ["elbo", "reconstruction", "kl"]
    for name, (band,) in bands.items():
        assert (band.value, band.lower, band.upper) == (f"val/{name}", f"train/{name}", f"val/{name}")
        assert {f"val/{name}", f"train/{name}"} <= set(events.Tags()["scalars"])


def test_tensorboards_projector_has_codes_labels_and_images(events):
    config = Path("lightning_logs/version_0/projector_config.pbtxt").read_text()
    assert "posterior_means" in config
    (folder,) = Path("lightning_logs/version_0").glob("*/posterior_means")
    codes = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    lit, data = runs.load_run(runs.last_checkpoint(Path("lightning_logs/version_0")), DATASETS)
    with torch.no_grad():
        np.testing.assert_allclose(codes[:, :2], lit.vae.encode(data.images("val")).mean, rtol=1e-4, atol=1e-6)
    assert codes.shape == (300, 3)  # of fewer than three the projector shows nothing
    assert not codes[:, 2].any()
    assert (folder / "metadata.tsv").read_text().split() == [str(label) for label in data.labels("val").tolist()]
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (18 * 8, 18 * 8)  # of 300 images


@pytest.mark.parametrize(("size", "sprite"), [((64, 48), 64), ((4, 512), 64)])
def test_tensorboards_projector_has_square_images_of_any_shape(tmp_path, size, sprite):
    for i in range(90):  # of which 9 validate
        Image.new("L", (8, 8), 2 * i).save(tmp_path / f"{i}.png")
    options = ["--data.size", str(list(size)), "--data.channels", "1", "--model.hidden_dims", "2"]
    options += ["--data.data_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    TrainCLI(ImageDataModule, DATASETS, ["--data", "ImageFolder", *options]).fit()
    (path,) = Path("lightning_logs/version_0").glob("*/posterior_means/sprite.png")
    with Image.open(path) as image:
        assert image.size == (3 * sprite, 3 * sprite)
    config = Path("lightning_logs/version_0/projector_config.pbtxt").read_text()
    assert re.findall(r"single_image_dim: (\d+)", config) == [str(sprite)] * 2


def test_tensorboard_compares_runs_by_hyper_parameters_and_results(events):
    content = events.PluginTagToContent("hparams")
    hparams = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert hparams["latent_dim"].string_value == "2"  # a number would be shown as 2.0000
    assert hparams["max_epochs"].string_value == "5"
    assert hparams["learning_rate"].number_value == 1e-3
    assert hparams["hidden_dims"].string_value == "16"
    assert hparams["data.dataset"].string_value == "Digits"
    assert [*content] == ["_hparams_/session_start_info"]  # what differs, and the values, TensorBoard then finds


@pytest.mark.parametrize(("epochs", "kept"), [(32, 32), (64, 32 + 16), (65, 48), (128, 32 + 16 + 16), (136, 65)])
def test_a_long_film_has_fewer_frames_later(epochs, kept):
    assert sum(keeps_frame(epoch) for epoch in range(1, epochs + 1)) == kept


def test_tensorboard_shows_curves_first_and_constants_last(events):
    """It sorts the groups of all kinds by name, in which a tag without a group is one of its own."""
    tags = [tag for kind in ("scalars", "images", "histograms") for tag in events.Tags()[kind]]
    assert sorted({tag.partition("/")[0] for tag in tags}) == ["train", "val", "view", "workings"]


def test_tensorboard_has_the_command_the_configuration_and_the_model(events):
    texts = {}
    for name in ("command", "configuration", "summary"):
        (event,) = events.Tensors(f"{name}/text_summary")
        lines = event.tensor_proto.string_val[0].decode().splitlines()
        assert all(line.startswith("    ") for line in lines if line)  # as code
        texts[name] = "\n".join(line[4:] for line in lines)
    assert texts["command"].startswith("python3 ")
    assert texts["configuration"] == Path("lightning_logs/version_0/config.yaml").read_text().rstrip("\n")
    assert "vae.likelihood" in texts["summary"]
    assert "Total params" in texts["summary"]


@pytest.mark.parametrize(
    ("objective", "val_size", "charts"),
    [("iwae", 20, ["importance_bound"]), ("wake_sleep", 20, ["wake", "sleep"]), ("elbo", 0, None)],
)
def test_custom_charts_have_what_the_run_has(tiny_mnist, objective, val_size, charts):
    options = ["--model.objective", objective, "--model.hidden_dims", "8", "--trainer.max_epochs", "1"]
    TrainCLI(ImageDataModule, DATASETS, ["--data", "MNIST", "--data.val_size", str(val_size), *options]).fit()
    log = EventAccumulator("lightning_logs/version_0", size_guidance={"tensors": 0}).Reload()
    if charts is None:
        assert "custom_scalars__config__" not in log.Tags()["tensors"]
        return
    layout = Layout.FromString(log.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (category,) = layout.category
    assert [chart.title for chart in category.chart] == charts
    for chart in category.chart:
        tags = {tag for band in chart.margin.series for tag in (band.value, band.lower, band.upper)}
        tags |= {*chart.multiline.tag}
        assert f"train/{chart.title}" in tags
        assert tags <= set(log.Tags()["scalars"])
