"""Learning curves mark by mark, and the film of a training."""

import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mosaics import HISTORY
from PIL import Image

from vae import VAE
from vae.figures import FIGURES, drawing, film_frame, render
from vae.figures.drawing import NotApplicable, encode_gif, image_figure


def test_a_learning_curve_has_training_and_validation_by_epoch():
    bound, reconstruction, kl = FIGURES["learning_curve"](HISTORY).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in bound.lines}
    assert lines == {
        "training, mean while the epoch ran": [[1, -200], [2, -150]],
        "validation, at the epoch's end": [[1, -190], [2, -160]],
    }
    assert [line.get_xydata().tolist() for line in kl.lines] == [[[1, 5], [2, 6]]]
    assert not reconstruction.lines
    assert {axes.get_ylabel() for axes in (bound, reconstruction, kl)} == {"nats per image"}


def test_a_learning_curve_has_whatever_the_objective_reports():
    """What is a bound beside the validation ELBO, each other value in a chart of its own; each stage has one colour."""
    validation = {name: curve for name, curve in HISTORY.items() if name.startswith("val/")}
    history = {"train/wake": {1: -250.0}, "train/sleep": {1: 3.0}, "train/renyi_bound": {1: -195.0}} | validation
    figure = FIGURES["learning_curve"](history)
    found = {axes.get_title(): [line.get_ydata().tolist() for line in axes.lines] for axes in figure.axes}
    assert found == {"Bound": [[-195], [-190, -160]], "Reconstruction": [], "KL": [], "Wake": [[-250]], "Sleep": [[3]]}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "renyi bound in training, mean while the epoch ran",
        "training, mean while the epoch ran",
        "validation, at the epoch's end",
    }
    assert len({line.get_color() for axes in figure.axes for line in axes.lines}) == 3
    with pytest.raises(NotApplicable, match="needs the curves that TensorBoard keeps"):
        FIGURES["learning_curve"]({"images_seen": {1: 5.0}})


def test_learning_curves_name_a_run_that_trains_no_bound():
    runs = {"one": HISTORY, "asleep": {"train/wake": {1: -9.0}, "val/elbo": {1: -99.0}, "images_seen": {1: 5.0}}}
    (axes,) = FIGURES["learning_curves"]({"digits": runs | {"own": HISTORY | {"train/renyi_bound": {1: -155.0}}}}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()][:3] == ["one", "asleep", "own"]
    assert [-155.0] in [line.get_ydata().tolist() for line in axes.lines]
    assert [-9.0] not in [line.get_ydata().tolist() for line in axes.lines]


def test_learning_curves_run_over_the_images_seen():
    other = {"train/importance_bound": {1: -170.0, 2: -165.0}, "images_seen": {1: 50.0}}
    (axes,) = FIGURES["learning_curves"]({"digits": {"one": HISTORY, "other": other, "empty": {}}}).axes
    lines = [line.get_xydata().tolist() for line in axes.lines[:3]]
    assert lines == [[[100, -200], [200, -150]], [[100, -190], [200, -160]], [[50, -170]]]
    assert axes.get_xscale() == "log"
    stages = ["training, mean while the epoch ran", "validation, at the epoch's end"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other", *stages]
    assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_a_film_has_each_frame_enlarged_and_its_epoch_above(latent_dim):
    frames = {epoch: film_frame(VAE((3, 8, 8), latent_dim=latent_dim)) for epoch in (1, 2, 30)}
    kind, content = render("training_film", {"frames": lambda: frames, "source": dict})
    film = Image.open(io.BytesIO(content))
    assert (kind, film.format, film.n_frames) == ("gif", "GIF", 3)
    assert max(film.size) < 2_000
    stills = []
    for place, frame in enumerate(frames.values()):
        film.seek(place)
        image = np.asarray(film.convert("RGB")).astype(int)
        expected = frame.permute(1, 2, 0).numpy()
        factor = -(-480 // max(expected.shape[:2]))
        expected = np.kron(expected, np.ones((factor, factor, 1), np.uint8)).astype(int)
        left, below = (image.shape[1] - expected.shape[1]) // 2, image.shape[0] - 30
        found = image[below - expected.shape[0] : below, left : left + expected.shape[1]]
        assert np.abs(found - expected).mean() < 8  # a GIF has 256 colours
        stills.append(image[: below - expected.shape[0]])
    assert (stills[0] != stills[2]).any()  # the epoch in the title


def test_large_images_make_no_giant_frames():
    for latent_dim in (2, 3):
        assert max(film_frame(VAE((1, 256, 200), latent_dim=latent_dim, hidden_dims=1)).shape) < 1_100


def test_runs_that_do_not_compare_have_charts_of_their_own():
    groups = {"MNIST, bernoulli": {"one": HISTORY}, "punks, categorical": {"two": HISTORY}, "nothing": {"three": {}}}
    charts = FIGURES["learning_curves"](groups).axes
    assert [axes.get_title() for axes in charts] == [
        "Learning curves: MNIST, bernoulli",
        "Learning curves: punks, categorical",
    ]
    assert [axes.get_legend().get_texts()[0].get_text() for axes in charts] == ["one", "two"]


def test_the_last_nats_of_learning_curves_have_height_and_the_axis_has_ticks():
    epochs = range(1, 51)
    curves = {
        name: {"train/elbo": {n: best - 100 / n for n in epochs}, "images_seen": {n: 1e4 * n for n in epochs}}
        for name, best in (("one", -99.0), ("two", -100.0))
    }
    figure = FIGURES["learning_curves"]({"digits": curves})
    (axes,) = figure.axes
    FigureCanvasAgg(figure).draw()
    low, high = axes.get_ylim()
    assert high - low < 20  # the curves span 100
    assert low < -100 - 100 / 8 + 0.1  # from where the second half of the logarithmic axis begins
    assert high > -99 - 100 / 50
    left, right = axes.get_xlim()
    ticks = [tick.label1.get_text() for tick in axes.xaxis.get_major_ticks() if left <= tick.get_loc() <= right]
    assert len(ticks) >= 3
    assert {"100k", "200k", "500k"} <= set(ticks)


@pytest.mark.parametrize(("frames", "milliseconds"), [(3, 1_000), (20, 400), (70, 120)])
def test_a_film_can_be_followed(frames, milliseconds):
    charts = [image_figure(torch.full((3, 20, 20), i, dtype=torch.uint8), "") for i in range(frames)]
    film = Image.open(io.BytesIO(encode_gif(charts, {})))
    durations = []
    for place in range(film.n_frames):
        film.seek(place)
        durations.append(film.info["duration"])
    assert film.n_frames == frames
    assert durations == [milliseconds] * (frames - 1) + [2_000]


def test_a_film_of_too_many_bytes_leaves_frames_out_but_not_the_last(monkeypatch):
    images = torch.randint(0, 256, (9, 3, 90, 90), dtype=torch.uint8)
    charts = [image_figure(image, "") for image in images]
    size = len(encode_gif(charts, {}))
    monkeypatch.setattr(drawing, "MAX_FILM_BYTES", 0.7 * size)
    content = encode_gif(charts, {})
    assert len(content) <= 0.7 * size
    film = Image.open(io.BytesIO(content))
    assert (film.n_frames, film.info["duration"]) == (5, 2 * (8_000 // 9) // 10 * 10)
    for place in range(5):
        film.seek(place)
        found = np.asarray(film.convert("RGB")).astype(int)[50:140, (film.width - 90) // 2 :][:, :90]
        errors = (torch.from_numpy(found) - images.permute(0, 2, 3, 1).int()).abs().float().mean((1, 2, 3))
        assert errors.argmin() == 2 * place
    assert film.info["duration"] == 2_000
