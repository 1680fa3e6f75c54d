"""Learning curves mark by mark, and the film of a training."""

import io

import numpy as np
import pytest
from mosaics import HISTORY
from PIL import Image

from vae import VAE
from vae.figures import FIGURES, film_frame, render


def test_a_learning_curve_has_training_and_validation_by_epoch():
    bound, reconstruction, kl = FIGURES["learning_curve"](HISTORY).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in bound.lines}
    assert lines == {"training": [[1, -200], [2, -150]], "validation": [[1, -190], [2, -160]]}
    assert [line.get_xydata().tolist() for line in kl.lines] == [[[1, 5], [2, 6]]]
    assert not reconstruction.lines
    assert {axes.get_ylabel() for axes in (bound, reconstruction, kl)} == {"nats per image"}


def test_learning_curves_run_over_the_pictures_seen():
    other = {"train/importance_bound": {1: -170.0}, "images_seen": {1: 50.0}}
    (axes,) = FIGURES["learning_curves"]({"one": HISTORY, "other": other, "empty": {}}).axes
    lines = [line.get_xydata().tolist() for line in axes.lines[:3]]
    assert lines == [[[100, -200], [200, -150]], [[100, -190], [200, -160]], [[50, -170]]]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other", "training", "validation"]
    assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_a_film_has_each_frame_enlarged_and_its_epoch_above(latent_dim):
    frames = {epoch: film_frame(VAE((3, 8, 8), latent_dim=latent_dim)) for epoch in (1, 2, 30)}
    kind, content = render("training_film", {"frames": lambda: frames})
    film = Image.open(io.BytesIO(content))
    assert (kind, film.format, film.n_frames) == ("gif", "GIF", 3)
    assert max(film.size) < 2_000
    stills = []
    for place, image in enumerate(frames.values()):
        film.seek(place)
        image = np.asarray(film.convert("RGB")).astype(int)
        expected = image.permute(1, 2, 0).numpy()
        factor = -(-480 // max(expected.shape[:2]))
        expected = np.kron(expected, np.ones((factor, factor, 1), np.uint8)).astype(int)
        left, below = (image.shape[1] - expected.shape[1]) // 2, image.shape[0] - 20
        found = image[below - expected.shape[0] : below, left : left + expected.shape[1]]
        assert np.abs(found - expected).mean() < 8  # a GIF has 256 colours
        stills.append(image[: below - expected.shape[0]])
    assert (stills[0] != stills[2]).any()  # the epoch in the title


def test_large_pictures_make_no_giant_frames():
    for latent_dim in (2, 3):
        assert max(film_frame(VAE((1, 256, 200), latent_dim=latent_dim, hidden_dims=1)).shape) < 1_100
