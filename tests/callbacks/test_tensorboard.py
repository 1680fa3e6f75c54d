"""What TensorBoard has of a run: curves, images, histograms, the projector, the hyper-parameters."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from datamodules import DATASETS
from vae import runs
from vae.callbacks import keeps_frame


def test_tensorboard_has_every_curve_once_an_epoch(told):
    curves = {f"{stage}/{name}" for stage in ("train", "val") for name in ("elbo", "reconstruction", "kl")}
    curves |= {"learning_rate", "beta", "val/active_units", "epoch_seconds", "images_per_second", "images_seen"}
    for name in curves:
        assert [event.step for event in told.Scalars(name)] == [1, 3, 5, 7, 9], name
    assert set(told.Tags()["scalars"]) == curves | {"epoch", "best_val_elbo"}
    for stage in ("train", "val"):
        elbo, reconstruction, kl = (
            [e.value for e in told.Scalars(f"{stage}/{name}")] for name in ("elbo", "reconstruction", "kl")
        )
        np.testing.assert_allclose(elbo, np.subtract(reconstruction, kl), rtol=1e-5)
        assert max(elbo) < -20
        assert min(kl) > 0
    assert [event.value for event in told.Scalars("learning_rate")] == pytest.approx([1e-3] * 5)
    assert [event.value for event in told.Scalars("images_seen")] == [1197 * epoch for epoch in range(1, 6)]
    for speed, seconds in zip(told.Scalars("images_per_second"), told.Scalars("epoch_seconds"), strict=True):
        assert speed.value > 1197 / seconds.value  # without the validation
    best = max(event.value for event in told.Scalars("val/elbo"))
    assert [event.value for event in told.Scalars("best_val_elbo")] == pytest.approx([best])


def test_tensorboard_has_pictures_and_histograms_after_epochs_1_2_4_and_the_last(told):
    for name, columns, rows in (("samples", 6, 6), ("learned_manifold", 10, 10)):
        assert [event.step for event in told.Images(name)] == [2, 4, 8, 10]
        for event in told.Images(name):
            with Image.open(io.BytesIO(event.encoded_image_string)) as image:
                assert image.size == (event.width, event.height) == (10 * columns + 2, 10 * rows + 2)
    assert [event.step for event in told.Images("reconstruction")] == [2, 4, 8, 10]
    for name, count in (("kl_per_dimension", 2), ("posterior_means", 2 * 300)):
        assert [event.step for event in told.Histograms(name)] == [2, 4, 8, 10]
        assert all(event.histogram_value.num == count for event in told.Histograms(name))
    last, kl = told.Histograms("kl_per_dimension")[-1].histogram_value, told.Scalars("val/kl")[-1].value
    assert last.sum == pytest.approx(kl, rel=1e-4)


def test_tensorboard_lays_training_beside_validation(told):
    layout = Layout.FromString(told.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (category,) = layout.category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts["KL"] == ["train/kl", "val/kl"]
    assert charts["bound"] == ["train/elbo", "train/importance_bound", "val/elbo"]
    tags = told.Tags()["scalars"]
    assert all(any(re.search(tag, known) for known in tags) for tag in (*charts["KL"], *charts["reconstruction"]))


def test_tensorboards_projector_has_codes_labels_and_pictures(told):
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


def test_tensorboard_compares_runs_by_hyper_parameters_and_results(told):
    content = told.PluginTagToContent("hparams")
    hparams = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert hparams["latent_dim"].number_value == 2
    assert hparams["hidden_dims"].string_value == "16" or hparams["hidden_dims"].number_value == 16
    assert hparams["data.dataset"].string_value == "Digits"
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    first = {info.name for info in experiment.hparam_infos if info.differs}
    assert first == {"data.dataset", "hidden_dims", "latent_dim", "likelihood", "objective"}
    names = {(metric.name.group, metric.name.tag) for metric in experiment.metric_infos}
    assert names == {("", "best_val_elbo"), ("test", "test/elbo"), ("test", "test/log_marginal")}


@pytest.mark.parametrize(("epochs", "kept"), [(32, 32), (64, 32 + 16), (65, 48), (128, 32 + 16 + 16), (136, 65)])
def test_a_long_film_has_fewer_frames_later(epochs, kept):
    assert sum(keeps_frame(epoch) for epoch in range(1, epochs + 1)) == kept
