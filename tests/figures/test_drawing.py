"""Drawing helpers pixel by pixel; every figure as a file."""

import io
from functools import partial
from inspect import signature

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from mosaics import HISTORY, SHAPES, SOURCE, grid_of
from PIL import Image
from scipy.spatial.distance import pdist

from vae import VAE
from vae.colours import COLOURS, label_colours
from vae.figures import FIGURES, NotApplicable, film_frame, reconstruction_grid, render, sample_grid, thumbnails
from vae.figures.drawing import (
    MAX_GRID_SIDE,
    MIN_CELL_SIDE,
    add_caption,
    cell_size,
    shorten,
    shorten_apart,
    text_width,
    to_cells,
)

MATERIAL = {"vae", "images", "labels", "classes", "dataset", "shown", "history", "histories", "frames"}


def inputs(**parts):
    """What gets each argument of a figure, where images and labels come with how many of them are shown."""
    return {name: lambda *n, value=value: value[: n[0]] if n else value for name, value in parts.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_enlarged_by_whole_numbers(shape):
    images = torch.randint(256, (2, *shape), dtype=torch.uint8)
    size = cell_size(shape, 2, 2, at_least=48)
    factor = size[1] // shape[2]
    assert size == (factor * shape[1], factor * shape[2])
    assert 48 <= min(size) < 48 + min(shape[1:])
    expected = torch.kron(images, torch.ones(1, 1, factor, factor, dtype=torch.uint8))
    assert torch.equal(to_cells(images / 255, size), expected.expand(-1, 3, -1, -1))


ASPECTS = [(1, 64, 48), (3, 32, 512), (1, 1, 600), (1, 600, 1), (3, 1, 1), (1, 250, 200), (3, 1000, 1000)]


@pytest.mark.parametrize("shape", [*ASPECTS, (1, 1, 10**6), (1, 28, 28)])
@pytest.mark.parametrize(("at_least", "spacing", "at_most"), [(72, 12, MAX_GRID_SIDE), (48, 0, 3_000), (1, 1, 500)])
def test_a_grid_of_any_images_stays_within_its_bound(shape, at_least, spacing, at_most):
    for count, columns in [(1, 1), (1, 10), (20, 10), (64, 8), (400, 20), (520, 13), (9 * 40, 9)]:
        height, width = cell_size(shape, count, columns, at_least, spacing, at_most)
        rows, columns = -(-count // columns), min(count, columns)
        assert rows * (height + spacing) - spacing <= at_most
        assert columns * (width + spacing) - spacing <= at_most
        assert min(height, width) >= min(MIN_CELL_SIDE, at_least, at_most // max(rows, columns) - spacing)
        if (factor := min(height / shape[1], width / shape[2])) >= 1 and min(height, width) > MIN_CELL_SIDE:
            assert (height, width) == (factor * shape[1], factor * shape[2])


def test_images_that_are_reduced_are_means_of_their_pixels():
    image = torch.rand(1, 1, 6, 40)
    size = cell_size(image.shape, 1, 1, at_least=3, at_most=20)
    assert size == (3, 20)
    expected = image.view(3, 2, 20, 2).mean((1, 3)).mul(255).round()
    assert torch.equal(to_cells(image, size)[0, 0], expected.byte())


def test_more_images_than_a_grid_has_pixels_are_refused():
    with pytest.raises(NotApplicable, match="5,000 rows of 2 images do not fit into 3,000 pixels: show fewer"):
        FIGURES["samples"](VAE((1, 8, 8)), num_samples=10_000, grid_width=2)
    parts = inputs(vae=VAE((1, 8, 8)), source=SOURCE, num_samples=64, grid_width=8, sample_pixels=False)
    with pytest.raises(NotApplicable, match="pixels does not fit into the memory: lower --dpi"):
        render("samples", parts, dpi=10_000)


@pytest.mark.parametrize("shape", [pytest.param(each, marks=[pytest.mark.slow] * (each[1] > 500)) for each in ASPECTS])
def test_figures_of_any_images_stay_within_a_bound(shape):
    vae, images = VAE(shape, 3, hidden_dims=(2,)), torch.rand(4, *shape)
    plane = VAE(shape, 2, hidden_dims=(2,))
    parts = material(3, vae, images, num_samples=4)
    for name in ("reconstruction", "reconstruction_by_class", "samples", "traversals", "interpolations"):
        arguments = {part: parts[part]() for part in signature(FIGURES[name]).parameters}
        figure = FIGURES[name](**arguments)
        assert max(grid_of(figure).shape) <= MAX_GRID_SIDE
        assert max(figure.bbox.size) <= MAX_GRID_SIDE + 300
        FigureCanvasAgg(figure).get_renderer()
        title = figure._suptitle.get_window_extent()
        assert 0 < title.x0 < title.x1 < figure.bbox.width
    for frame in (film_frame(vae), film_frame(plane)):
        assert max(frame.shape) <= 1_000
        assert max(FIGURES["training_film"]({1: frame})[0].bbox.size) <= 1_100
    assert max(reconstruction_grid(vae, images, 1, 2, 2_000).shape) <= 2_000
    assert max(sample_grid(vae, 36, 6, 1, 1, 2_000).shape) <= 2_000
    assert max(grid_of(FIGURES["learned_manifold"](plane)).shape) <= MAX_GRID_SIDE


@pytest.mark.parametrize("shape", ASPECTS[:-1])
def test_thumbnails_are_square_and_small_and_show_the_whole_image(shape):
    images = torch.zeros(3, *shape)
    small = thumbnails(images, 64)
    side = min(64, max(shape[1:]))
    assert small.shape == (3, 3, side, side)
    black = (small[0, 0] == 0).nonzero()
    high, wide = (black.amax(0) - black.amin(0) + 1).tolist()
    assert max(high, wide) == side
    assert len(black) == high * wide  # a whole rectangle, of the image's shape
    assert (high, wide) == tuple(max(1, side * each // max(shape[1:])) for each in shape[1:])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_shows_a_mosaic_pixel_by_pixel_below_its_title(shape):
    vae = VAE(shape)
    options = {"num_samples": 6, "grid_width": 3, "sample_pixels": False}
    kind, content = render("samples", inputs(vae=vae, source=SOURCE, **options))
    assert kind == "png"
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    grid = grid_of(FIGURES["samples"](vae, num_samples=6, grid_width=3))
    left, below = (image.shape[1] - grid.shape[1]) // 2, image.shape[0] - 30
    np.testing.assert_array_equal(image[below - grid.shape[0] : below, left : left + grid.shape[1]], grid)
    title = image[: below - grid.shape[0]]
    assert (title != 255).any()
    assert (image[0] == 255).all()  # nothing is cut off at the edges
    assert (image[:, 0] == 255).all()


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("learned_manifold", [3], "learned_manifold needs a latent space of 1 or 2 dimensions; this model has 3"),
        ("reconstruction_by_class", [2, torch.rand(2, 1, 8, 8), None, None], "needs labels; these images have none"),
        ("interpolations", [2, torch.rand(1, 1, 8, 8)], "interpolations needs at least two images"),
        ("posterior", [1, torch.rand(3, 1, 8, 8)], "posterior needs a latent space of 2 dimensions; this model has 1"),
        ("latent_usage", [2, torch.rand(3, 1, 8, 8)], "more than two latent variables; this model has 2"),
        ("latent_scatter", [3, torch.rand(3, 1, 8, 8), None, None], "latent_scatter needs at least four images"),
        ("learning_curve", [{}], "learning_curve needs the curves that TensorBoard keeps"),
        ("learning_curves", [{}], "learning_curves needs the curves that TensorBoard keeps"),
        ("training_film", [{}], "training_film needs the frames that training keeps"),
    ],
)
def test_what_makes_no_sense_says_why(name, arguments, reason):
    arguments = [VAE((1, 8, 8), latent_dim=part) if isinstance(part, int) else part for part in arguments]
    with pytest.raises(NotApplicable, match=reason):
        FIGURES[name](*arguments)


def material(latent_dim, vae=None, images=None, num_samples=9):
    vae = vae or VAE((3, 8, 8), latent_dim=latent_dim, hidden_dims=(8,))
    images = torch.rand(40, 3, 8, 8) if images is None else images
    return inputs(
        vae=vae,
        images=images,
        labels=torch.arange(len(images)) % 4,
        classes="abcd",
        dataset="letters",
        shown="images",
        history=HISTORY,
        histories={"digits, bernoulli": {"one": HISTORY}, "punks, categorical": {"two": HISTORY}},
        frames={1: film_frame(vae), 2: film_frame(vae)},
        num_samples=num_samples,
        grid_width=3,
        sample_pixels=True,
        grid="quantiles",
        extent=3.0,
        grid_size=4,
        tsne_points=40,
        source=SOURCE,
    )


OTHER_DIMS = [("learned_manifold", 1), ("latent_scatter", 1), ("latent_scatter", 4), ("interpolations", 1)]


@pytest.mark.parametrize(
    ("name", "latent_dim"), [*((name, 4 if name == "latent_usage" else 2) for name in FIGURES), *OTHER_DIMS]
)
def test_a_figure_is_the_same_file_each_time_and_nothing_is_cut_off(name, latent_dim):
    torch.manual_seed(0)
    parts = material(latent_dim, images=torch.rand(1, 3, 8, 8) if name == "posterior" else None)  # an integral for each
    kind, content = render(name, parts)
    torch.manual_seed(1)
    assert render(name, parts) == (kind, content)
    if kind == "html":
        return
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge >= 250).all()


def test_every_figure_needs_only_what_there_is():
    for name in FIGURES:
        parts = signature(FIGURES[name]).parameters.values()
        assert {part.name for part in parts if part.kind == part.POSITIONAL_OR_KEYWORD} <= MATERIAL


def test_the_figures_stand_in_reading_order():
    assert [*FIGURES] == [
        *("reconstruction", "reconstruction_by_class", "samples", "learned_manifold", "latent_scatter", "posterior"),
        *("traversals", "interpolations", "learning_curve", "learning_curves", "latent_usage", "training_film"),
        "explorer",
    ]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("reconstruction", ["run", "epoch", "data", "split", "likelihood"]),
        ("samples", ["run", "epoch", "data", "likelihood"]),  # of no split
        ("learning_curve", ["run", "data", "likelihood"]),  # of all epochs
        ("learning_curves", []),  # of several runs, which the figure names itself
        ("training_film", ["run", "data", "likelihood"]),
    ],
)
def test_a_figure_says_what_it_is_of_in_caption_and_metadata(name, parts, monkeypatch):
    captions = []
    monkeypatch.setattr(Figure, "supxlabel", lambda chart, text, **look: captions.append(text))
    kind, content = render(name, material(2))
    described = {part: SOURCE[part] for part in parts}
    named = {"run": "run a_b$", "epoch": "epoch 7", "split": "split test"}
    assert set(captions) == {"  ·  ".join(named.get(part, text) for part, text in described.items())}
    with Image.open(io.BytesIO(content)) as image:
        if kind == "gif":
            assert image.info["comment"].decode() == ", ".join(f"{part}: {text}" for part, text in described.items())
        else:
            found = {part: text for part, text in image.text.items() if part != "Software"}
            assert found == {"Title": name} | {part.capitalize(): text for part, text in described.items()}


def test_the_caption_overlaps_nothing():
    vae, images = VAE((1, 8, 8), latent_dim=3), torch.rand(30, 1, 8, 8)
    for name, arguments in (("latent_scatter", [None, None]), ("latent_usage", []), ("reconstruction", [])):
        chart = FIGURES[name](vae, images, *arguments)
        add_caption(chart, SOURCE)
        canvas = FigureCanvasAgg(chart)
        canvas.draw()
        (caption,) = [text for text in chart.texts if text.get_text().startswith("run a_b$  ·  epoch 7")]
        below, renderer = caption.get_window_extent(), canvas.get_renderer()
        assert 0 < below.y0 < below.y1 < chart.axes[0].get_tightbbox(renderer).y0
        assert 0 < below.x0 < below.x1 < chart.bbox.width


def test_a_long_name_of_a_run_fits_into_the_caption():
    chart = FIGURES["samples"](VAE((1, 8, 8)), num_samples=4, grid_width=2)
    add_caption(chart, SOURCE | {"run": 300 * "w"})
    FigureCanvasAgg(chart).draw()
    extent = chart.texts[-1].get_window_extent()
    assert 0 < extent.x0 < extent.x1 < chart.bbox.width


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("reconstruction", {"images": 40}),
        ("interpolations", {"images": 10}),
        ("posterior", {"images": 6}),
        ("traversals", {"images": 2_000}),
        ("latent_scatter", {"images": 10_000, "labels": 10_000}),
        ("samples", {}),
    ],
)
def test_a_figure_asks_for_the_images_that_it_shows(name, counts):
    asked = {}

    def first(part, value, n):
        asked[part] = n
        return value[:2]  # which are drawn faster

    parts = material(2)
    for part in ("images", "labels"):
        parts[part] = partial(first, part, parts[part]())
    render(name, parts)
    assert asked == counts


def test_a_string_is_a_page(monkeypatch):
    monkeypatch.setitem(FIGURES, "page", lambda vae: f"<p>ö {vae}</p>")
    assert render("page", inputs(vae="a model")) == ("html", "<p>ö a model</p>".encode())


def test_a_name_is_cut_to_a_width():
    assert shorten("dogs and other animals", 14) == "dogs and other …"
    assert shorten("0" * 14, 14) == "0" * 14
    assert shorten("W" * 14, 14) == "W" * 7 + "…"
    assert shorten("i" * 20, 14) == "i" * 20


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["dogs and other animals", "cats"], ["dogs and other …", "cats"]),
        (["dogs and other animals"] * 2, ["dogs and other …"] * 2),  # rows of one name
        ([f"photographs of {n}" for n in (2019, 2020)], ["photograp…2019", "photograp…2020"]),
        (["n" * 30 + c + "n" * 30 for c in "ab"], ["nnnnnnnnnn… 1", "nnnnnnnnnn… 2"]),
    ],
)
def test_names_that_are_cut_stay_apart(texts, expected):
    short = shorten_apart(texts, 14)
    assert len(set(short)) == len(set(texts))
    assert all(text_width(text) <= 14 * text_width("0") for text in short)
    assert short == expected


def test_every_label_has_a_colour_of_its_own():
    for number in (1, 10, 11, 60):
        assert len(set(label_colours(number))) == number


def test_ten_classes_have_colours_that_are_far_apart():
    rgb = np.array([to_rgb(colour) for colour in COLOURS])
    assert pdist(lab(rgb)).min() > 35
    assert pdist(lab(deuteranopia(rgb))).min() > 18
    assert min(np.linalg.norm(lab(rgb) - lab(np.ones(3)), axis=1)) > 30  # from the paper


def lab(rgb):
    """SRGB in CIELAB, by its definition."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    x, y, z = np.moveaxis(np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 0.008856)), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def deuteranopia(rgb):
    """SRGB as it appears to the colour-blind: Machado et al., 2009, severity 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    linear = (linear @ np.array(matrix).T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
