"""The pictures, pixel by pixel and mark by mark."""

import io
from inspect import signature

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from vae import VAE
from vae.figures import FIGURES, NotApplicable, enlarged, frame, render, slerp

SHAPES = [(1, 8, 8), (3, 24, 24), (3, 5, 9)]
MATERIAL = {"vae", "images", "labels", "classes", "history", "histories", "frames"}


def grid_of(figure):
    """The mosaic in a figure, as it is when the file is opened again: uint8 [H, W, 3]."""
    (axes, *_) = figure.axes
    return np.asarray(axes.images[0].get_array())


def shown(pictures, factor):
    """Pictures [N, C, H, W] as they must appear: uint8 [N, factor H, factor W, 3]."""
    pictures = pictures.mul(255).round().byte().numpy().transpose(0, 2, 3, 1)
    return np.kron(np.broadcast_to(pictures, (*pictures.shape[:3], 3)), np.ones((1, factor, factor, 1), np.uint8))


def cell(grid, row, column, shape, factor):
    """One picture of a mosaic, whose pictures are two white pixels apart."""
    top, left = 2 + row * (factor * shape[1] + 2), 2 + column * (factor * shape[2] + 2)
    return grid[top : top + factor * shape[1], left : left + factor * shape[2]]


def texts(axes):
    return [label.get_text() for label in axes.get_xticklabels()], [
        label.get_text() for label in axes.get_yticklabels()
    ]


@torch.no_grad()
def code(vae, images):
    return vae.encode(images).mean


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_enlarged_by_whole_numbers(shape):
    pictures = torch.rand(2, *shape)
    large = enlarged(pictures, 48)
    factor = large.shape[-1] // shape[-1]
    assert large.shape[-2:] == (factor * shape[1], factor * shape[2])
    assert min(large.shape[-2:]) >= 48
    assert torch.equal(large, torch.kron(pictures, torch.ones(1, 1, factor, factor)))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_shows_a_mosaic_pixel_by_pixel_below_its_title(shape):
    vae = VAE(shape)
    kind, content = render("samples", {"vae": lambda: vae, "num_samples": lambda: 6, "grid_width": lambda: 3})
    assert kind == "png"
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    grid = grid_of(FIGURES["samples"](vae, num_samples=6, grid_width=3))
    left, below = (image.shape[1] - grid.shape[1]) // 2, image.shape[0] - 20
    np.testing.assert_array_equal(image[below - grid.shape[0] : below, left : left + grid.shape[1]], grid)
    title = image[: below - grid.shape[0]]
    assert (title != 255).any()
    assert (image[0] == 255).all()  # nothing is cut off at the edges
    assert (image[:, 0] == 255).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_has_originals_left_and_decoded_right(shape):
    vae, images = VAE(shape), torch.rand(12, *shape)
    factor = -(-72 // min(shape[1:]))
    height, width = factor * shape[1], factor * shape[2]
    grid = grid_of(FIGURES["reconstruction"](vae, images))
    with torch.no_grad():
        originals, decoded = shown(images, factor), shown(vae.reconstruct(images), factor)
    for i in (0, 4, 5, 11):  # five pairs a row; each pair with a border of 2, and 8 between pairs
        top, left = 10 + i // 5 * (height + 12), 10 + i % 5 * (2 * width + 14)
        np.testing.assert_array_equal(grid[top : top + height, left : left + width], originals[i])
        np.testing.assert_array_equal(grid[top : top + height, left + width + 2 : left + 2 * width + 2], decoded[i])


def test_reconstruction_by_class_has_three_of_each_class_and_their_error():
    shape, labels = (1, 24, 24), torch.tensor([2, 0, 2, 0, 2, 2, 0, 0], dtype=torch.uint8)
    vae, images = VAE(shape), torch.rand(8, *shape)
    figure = FIGURES["reconstruction_by_class"](vae, images, labels, ("cats", "cows", "dogs and other animals"))
    grid = grid_of(figure)
    columns, rows = texts(figure.axes[0])
    assert rows == ["cats", "dogs and othe…"]  # no cow is there
    assert columns == ["original", "decoded", "error"] * 3
    for row, places in enumerate([(1, 3, 6), (0, 2, 4)]):
        for number, place in enumerate(places):
            with torch.no_grad():
                decoded = vae.reconstruct(images[[place]])
            np.testing.assert_array_equal(cell(grid, row, 3 * number, shape, 3), shown(images[[place]], 3)[0])
            np.testing.assert_array_equal(cell(grid, row, 3 * number + 1, shape, 3), shown(decoded, 3)[0])
            brightness = cell(grid, row, 3 * number + 2, shape, 3).astype(float).sum(-1)
            error = np.kron((images[place] - decoded[0]).abs()[0].numpy(), np.ones((3, 3)))
            assert stats.spearmanr(brightness.ravel(), error.ravel()).statistic > 0.99


def test_a_class_of_few_pictures_leaves_its_cells_white():
    vae, images = VAE((1, 8, 8)), torch.rand(1, 1, 8, 8)
    grid = grid_of(FIGURES["reconstruction_by_class"](vae, images, torch.tensor([0]), ("one",)))
    assert (grid[:, 2 + 3 * 74 :] == 255).all()


def test_the_manifold_is_decoded_from_the_gaussians_quantiles():
    vae = VAE((1, 24, 24))
    figure = FIGURES["learned_manifold"](vae)
    grid = grid_of(figure)
    assert grid.shape == (20 * 50 + 2, 20 * 50 + 2, 3)
    for row, column in ((0, 0), (0, 19), (13, 4)):
        z = stats.norm.ppf([(column + 0.5) / 20, (19 - row + 0.5) / 20])  # to the right, and up
        with torch.no_grad():
            expected = shown(vae.decode(torch.tensor(z, dtype=torch.float32)).mean.unsqueeze(0), 2)[0]
        found = cell(grid, row, column, (1, 24, 24), 2)
        assert np.abs(found.astype(int) - expected).max() <= 1
    columns, rows = texts(figure.axes[0])
    assert (columns[0], rows[0]) == ("-1.96", "1.96")


def test_the_manifold_in_even_steps():
    vae, shape = VAE((1, 24, 24)), (1, 24, 24)
    grid = grid_of(FIGURES["learned_manifold"](vae, grid="linspace", extent=2.0, grid_size=5))
    with torch.no_grad():
        corner = shown(vae.decode(torch.tensor([[-2.0, 2.0]])).mean, 2)[0]
        middle = shown(vae.decode(torch.zeros(1, 2)).mean, 2)[0]
    assert np.abs(cell(grid, 0, 0, shape, 2).astype(int) - corner).max() <= 1
    assert np.abs(cell(grid, 2, 2, shape, 2).astype(int) - middle).max() <= 1


def test_a_latent_line_has_a_manifold_of_one_row():
    vae = VAE((1, 24, 24), latent_dim=1)
    assert grid_of(FIGURES["learned_manifold"](vae, grid_size=7)).shape == (52, 7 * 50 + 2, 3)
    assert frame(vae).shape == (3, 24 + 4, 10 * 26 + 2)


def test_samples_are_decoded_from_the_prior():
    vae = VAE((1, 24, 24), latent_dim=1)
    with torch.no_grad():
        vae.likelihood.logits[0].weight.zero_()
        vae.likelihood.logits[0].bias.zero_()
    grid = grid_of(FIGURES["samples"](vae, num_samples=10, grid_width=4))
    assert grid.shape == (3 * 74 + 2, 4 * 74 + 2, 3)
    assert sorted(set(grid[: 2 * 74].flatten().tolist())) == [128, 255]  # grey pictures, white lines


@pytest.mark.parametrize("labelled", [True, False])
def test_a_scatter_has_every_code_once_in_its_class(labelled):
    vae, images = VAE((1, 8, 8)), torch.rand(30, 1, 8, 8)
    labels = torch.arange(30, dtype=torch.uint8) % 3 if labelled else None
    (axes,) = FIGURES["latent_scatter"](vae, images, labels, ("a", "_b$", "c") if labelled else None).axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), code(vae, images), rtol=1e-6)
    colours = [tuple(colour) for colour in axes.collections[0].get_facecolor()]
    if labelled:
        assert len(set(colours)) == 3
        assert colours == colours[:3] * 10
        legend = axes.get_legend()
        assert [text.get_text().strip() for text in legend.get_texts()] == ["a", "_b$", "c"]
        shown = [handle.get_facecolor()[0][:3].tolist() for handle in legend.legend_handles]
        assert shown == [list(colour[:3]) for colour in colours[:3]]
    else:
        assert len(set(colours)) == 1
        assert axes.get_legend() is None


def test_above_two_dimensions_a_scatter_shows_pca_and_tsne():
    vae, images = VAE((1, 8, 8), latent_dim=5), torch.rand(60, 1, 8, 8)
    by_pca, by_tsne = FIGURES["latent_scatter"](vae, images, None, None, tsne_points=40).axes
    z = code(vae, images).double().numpy()
    centred = z - z.mean(0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    found = np.asarray(by_pca.collections[0].get_offsets())
    np.testing.assert_allclose(np.abs(found), np.abs(centred @ directions[:2].T), atol=1e-4)
    assert by_pca.get_xlabel() == f"component 1: {sizes[0] ** 2 / (sizes**2).sum():.0%} of the variance"
    drawn = np.asarray(by_tsne.collections[0].get_offsets())
    assert len(drawn) == 40
    near = squareform(pdist(z[:40])).argsort(1)[:, 1]  # the nearest neighbour in five dimensions
    rank = squareform(pdist(drawn)).argsort(1).argsort(1)[np.arange(40), near]
    assert np.median(rank) < 10  # is among the near ones on the map; 20 of 40 by chance


def test_a_latent_line_is_scattered_along_an_axis():
    vae, images = VAE((1, 8, 8), latent_dim=1), torch.rand(30, 1, 8, 8)
    (axes,) = FIGURES["latent_scatter"](vae, images, None, None).axes
    np.testing.assert_allclose(axes.collections[0].get_offsets()[:, 0], code(vae, images)[:, 0], rtol=1e-6)


def test_traversals_move_one_variable_from_the_first_pictures_code():
    vae, images, shape = VAE((1, 24, 24), latent_dim=3), torch.rand(10, 1, 24, 24), (1, 24, 24)
    with torch.no_grad():
        vae.posterior.mean.weight[1] *= 20  # the second variable is the most active one
        vae.posterior.mean.weight[2].zero_()
        vae.posterior.mean.bias[2].zero_()
    figure = FIGURES["traversals"](vae, images)
    columns, rows = texts(figure.axes[0])
    assert [row[:2] for row in rows] == ["z₂", "z₁", "z₃"]
    assert [columns[0], columns[6], columns[-1]] == ["-3", "0", "3"]
    z = code(vae, images)[0].clone()
    z[0] = 1.5
    with torch.no_grad():
        expected = shown(vae.decode(z.unsqueeze(0)).mean, 3)[0]
    assert np.abs(cell(grid_of(figure), 1, 9, shape, 3).astype(int) - expected).max() <= 1


def test_interpolations_go_from_one_code_to_the_other():
    vae, images, shape = VAE((1, 24, 24), latent_dim=3), torch.rand(4, 1, 24, 24), (1, 24, 24)
    figure = FIGURES["interpolations"](vae, images)
    grid, (columns, rows) = grid_of(figure), texts(figure.axes[0])
    assert rows == ["straight", "spherical"] * 2
    assert (columns[0], columns[1], columns[-2], columns[-1]) == ("from", "0.0", "1.0", "to")
    z = code(vae, images)
    with torch.no_grad():
        halfway = vae.decode(z[2:].mean(0, keepdim=True)).mean
        decoded = vae.reconstruct(images)
    for row in (2, 3):
        np.testing.assert_array_equal(cell(grid, row, 0, shape, 3), shown(images, 3)[2])
        np.testing.assert_array_equal(cell(grid, row, 12, shape, 3), shown(images, 3)[3])
        for column, picture in ((1, decoded[2:3]), (11, decoded[3:4])):
            assert np.abs(cell(grid, row, column, shape, 3).astype(int) - shown(picture, 3)[0]).max() <= 1
    assert np.abs(cell(grid, 2, 6, shape, 3).astype(int) - shown(halfway, 3)[0]).max() <= 1


def test_the_spherical_way_stays_on_the_sphere_at_even_angles():
    one, other = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.6, 0.8])
    path = torch.stack([slerp(one, other, step) for step in torch.linspace(0, 1, 5)])
    torch.testing.assert_close(path.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(path @ one, torch.linspace(0, np.pi / 2, 5).cos(), atol=1e-6, rtol=0)
    for parallel in (2 * one, -one):  # no arc between them, or no single one
        torch.testing.assert_close(slerp(one, parallel, torch.tensor(0.25)), 0.75 * one + 0.25 * parallel)


def test_a_latent_line_has_straight_ways_alone():
    figure = FIGURES["interpolations"](VAE((1, 8, 8), latent_dim=1), torch.rand(10, 1, 8, 8))
    assert texts(figure.axes[0])[1] == ["straight"] * 5


HISTORY = {
    "train/elbo": {1: -200.0, 2: -150.0},
    "val/elbo": {1: -190.0, 2: -160.0},
    "train/kl": {1: 5.0, 2: 6.0},
    "pictures_seen": {1: 100.0, 2: 200.0},
}


def test_a_learning_curve_has_training_and_validation_by_epoch():
    bound, reconstruction, kl = FIGURES["learning_curve"](HISTORY).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in bound.lines}
    assert lines == {"training": [[1, -200], [2, -150]], "validation": [[1, -190], [2, -160]]}
    assert [line.get_xydata().tolist() for line in kl.lines] == [[[1, 5], [2, 6]]]
    assert not reconstruction.lines
    assert {axes.get_ylabel() for axes in (bound, reconstruction, kl)} == {"nats per picture"}


def test_learning_curves_run_over_the_pictures_seen():
    other = {"train/importance_bound": {1: -170.0}, "pictures_seen": {1: 50.0}}
    (axes,) = FIGURES["learning_curves"]({"one": HISTORY, "other": other, "empty": {}}).axes
    lines = [line.get_xydata().tolist() for line in axes.lines[:3]]
    assert lines == [[[100, -200], [200, -150]], [[100, -190], [200, -160]], [[50, -170]]]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other", "training", "validation"]
    assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()


def test_latent_usage_is_sorted_and_marks_what_is_active():
    vae, images = VAE((1, 8, 8), latent_dim=3), torch.rand(50, 1, 8, 8)
    with torch.no_grad():
        vae.posterior.mean.weight[0] *= 30
        vae.posterior.mean.weight[1].zero_()
        vae.posterior.mean.weight[2] *= 10
        vae.posterior.mean.bias[1] = 9.0  # much KL, but the same for every picture
    (axes,) = FIGURES["latent_usage"](vae, images).axes
    with torch.no_grad():
        kl = vae.kl_per_dimension(vae.encode(images)).mean(0)
    bars = sorted((bar.get_x(), bar.get_height(), bar.get_hatch()) for bar in axes.patches)
    np.testing.assert_allclose([height for _, height, _ in bars], kl.sort(descending=True).values, rtol=1e-5)
    assert [hatch for *_, hatch in bars] == ["///", None, None]
    assert texts(axes)[0] == ["z₂", "z₁", "z₃"]
    assert axes.get_title() == f"2 of 3 latent variables are active; {kl.sum():.1f} nats in all"


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_a_film_has_each_frame_enlarged_and_its_epoch_above(latent_dim):
    frames = {epoch: frame(VAE((3, 8, 8), latent_dim=latent_dim)) for epoch in (1, 2, 30)}
    kind, content = render("training_film", {"frames": lambda: frames})
    film = Image.open(io.BytesIO(content))
    assert (kind, film.format, film.n_frames) == ("gif", "GIF", 3)
    assert max(film.size) < 2_000
    stills = []
    for place, picture in enumerate(frames.values()):
        film.seek(place)
        image = np.asarray(film.convert("RGB")).astype(int)
        expected = picture.permute(1, 2, 0).numpy()
        factor = -(-480 // max(expected.shape[:2]))
        expected = np.kron(expected, np.ones((factor, factor, 1), np.uint8)).astype(int)
        left, below = (image.shape[1] - expected.shape[1]) // 2, image.shape[0] - 20
        found = image[below - expected.shape[0] : below, left : left + expected.shape[1]]
        assert np.abs(found - expected).mean() < 8  # a GIF has 256 colours
        stills.append(image[: below - expected.shape[0]])
    assert (stills[0] != stills[2]).any()  # the epoch in the title


def test_large_pictures_make_no_giant_frames():
    for latent_dim in (2, 3):
        assert max(frame(VAE((1, 256, 200), latent_dim=latent_dim, hidden_dims=1)).shape) < 1_100


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("learned_manifold", [3], "learned_manifold needs a latent space of 1 or 2 dimensions; this model has 3"),
        ("reconstruction_by_class", [2, torch.rand(2, 1, 8, 8), None, None], "needs labels; these pictures have none"),
        ("interpolations", [2, torch.rand(1, 1, 8, 8)], "interpolations needs at least two pictures"),
        ("latent_scatter", [3, torch.rand(3, 1, 8, 8), None, None], "latent_scatter needs at least four pictures"),
        ("learning_curve", [{}], "learning_curve needs the curves that TensorBoard keeps"),
        ("learning_curves", [{}], "learning_curves needs the curves that TensorBoard keeps"),
        ("training_film", [{}], "training_film needs the frames that training keeps"),
    ],
)
def test_what_makes_no_sense_says_why(name, arguments, reason):
    arguments = [VAE((1, 8, 8), latent_dim=part) if isinstance(part, int) else part for part in arguments]
    with pytest.raises(NotApplicable, match=reason):
        FIGURES[name](*arguments)


def material(latent_dim):
    vae, images = VAE((3, 8, 8), latent_dim=latent_dim), torch.rand(40, 3, 8, 8)
    parts = {
        "vae": vae,
        "images": images,
        "labels": torch.arange(40) % 4,
        "classes": "abcd",
        "history": HISTORY,
        "histories": {"one": HISTORY},
        "frames": {1: frame(vae), 2: frame(vae)},
        "num_samples": 9,
        "grid_width": 3,
        "grid": "quantiles",
        "extent": 3.0,
        "grid_size": 4,
        "tsne_points": 40,
    }
    return {name: lambda value=value: value for name, value in parts.items()}


@pytest.mark.parametrize(
    ("name", "latent_dim"),
    [
        (name, latent_dim)
        for name in FIGURES
        for latent_dim in (1, 2, 4)
        if (name, latent_dim) != ("learned_manifold", 4)
    ],
)
def test_a_figure_is_the_same_file_each_time_and_nothing_is_cut_off(name, latent_dim):
    torch.manual_seed(0)
    parts = material(latent_dim)
    kind, content = render(name, parts)
    torch.manual_seed(1)
    assert render(name, parts) == (kind, content)
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge >= 250).all()


def test_every_figure_needs_only_what_there_is():
    for name in FIGURES:
        parts = signature(FIGURES[name]).parameters.values()
        assert {part.name for part in parts if part.kind == part.POSITIONAL_OR_KEYWORD} <= MATERIAL
