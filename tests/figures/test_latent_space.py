"""The latent space: manifold, scatter, traversals, interpolations and usage."""

from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mosaics import cell, code, grid_of, shown, texts
from processes import CONTEXT, fork
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from vae import VAE
from vae.figures import FIGURES, NotApplicable, film_frame
from vae.figures.latent_space import slerp, spread


def test_the_manifold_is_decoded_from_the_gaussians_quantiles():
    vae = VAE((1, 24, 24))
    figure = FIGURES["learned_manifold"](vae)
    grid = grid_of(figure)
    assert grid.shape == (20 * 48, 20 * 48, 3)
    for row, column in ((0, 0), (0, 19), (13, 4)):
        z = stats.norm.ppf([(column + 0.5) / 20, (19 - row + 0.5) / 20])  # to the right, and up
        with torch.no_grad():
            expected = shown(vae.decode(torch.tensor(z, dtype=torch.float32)).mean.unsqueeze(0), 2)[0]
        found = cell(grid, row, column, (1, 24, 24), 2, spacing=0)
        assert np.abs(found.astype(int) - expected).max() <= 1
    columns, rows = texts(figure.axes[0])
    assert (columns[0], rows[0]) == ("-1.96", "1.96")
    assert columns == rows[::-1] == [f"{z:.2f}" for z in stats.norm.ppf((np.arange(20) + 0.5) / 20)]  # every cell's
    for ticks in (figure.axes[0].get_xticks(), figure.axes[0].get_yticks()):
        np.testing.assert_allclose(np.diff(ticks), 48)


def test_the_manifold_in_even_steps():
    vae, shape = VAE((1, 24, 24)), (1, 24, 24)
    grid = grid_of(FIGURES["learned_manifold"](vae, grid="linspace", extent=2.0, grid_size=5))
    with torch.no_grad():
        corner = shown(vae.decode(torch.tensor([[-2.0, 2.0]])).mean, 2)[0]
        middle = shown(vae.decode(torch.zeros(1, 2)).mean, 2)[0]
    assert np.abs(cell(grid, 0, 0, shape, 2, spacing=0).astype(int) - corner).max() <= 1
    assert np.abs(cell(grid, 2, 2, shape, 2, spacing=0).astype(int) - middle).max() <= 1


def test_a_latent_line_has_a_manifold_of_one_row():
    vae = VAE((1, 24, 24), latent_dim=1)
    assert grid_of(FIGURES["learned_manifold"](vae, grid_size=7)).shape == (48, 7 * 48, 3)
    assert film_frame(vae).shape == (3, 24, 10 * 24)


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


def test_above_two_dimensions_a_scatter_shows_tsne():
    vae, images = VAE((1, 8, 8), latent_dim=5), torch.rand(60, 1, 8, 8)
    (axes,) = FIGURES["latent_scatter"](vae, images, None, None, tsne_points=40).axes
    assert axes.get_title() == "t-SNE of the posterior means of 40 images"
    z = code(vae, images).double().numpy()
    drawn = np.asarray(axes.collections[0].get_offsets())
    assert len(drawn) == 40
    near = squareform(pdist(z[:40])).argsort(1)[:, 1]  # the nearest neighbour in five dimensions
    rank = squareform(pdist(drawn)).argsort(1).argsort(1)[np.arange(40), near]
    assert np.median(rank) < 10  # is among the near ones on the map; 20 of 40 by chance


def test_a_latent_line_is_scattered_along_an_axis():
    vae, images = VAE((1, 8, 8), latent_dim=1), torch.rand(30, 1, 8, 8)
    (axes,) = FIGURES["latent_scatter"](vae, images, None, None).axes
    np.testing.assert_allclose(axes.collections[0].get_offsets()[:, 0], code(vae, images)[:, 0], rtol=1e-6)


def test_traversals_move_one_variable_from_the_first_images_code():
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
        for column, image in ((1, decoded[2:3]), (11, decoded[3:4])):
            assert np.abs(cell(grid, row, column, shape, 3).astype(int) - shown(image, 3)[0]).max() <= 1
    assert np.abs(cell(grid, 2, 6, shape, 3).astype(int) - shown(halfway, 3)[0]).max() <= 1


def test_the_spherical_way_stays_on_the_sphere_at_even_angles():
    one, other = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.6, 0.8])
    path = torch.stack([slerp(one, other, step) for step in torch.linspace(0, 1, 5)])
    torch.testing.assert_close(path.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(path @ one, torch.linspace(0, np.pi / 2, 5).cos(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "ends",
    [
        [(0.7, 3.0), (-0.6, -2.4)],  # nearly opposite
        [(1.0, -2.0), (2.0, 1.0)],
        [(1.0, 0.0, 2.0, 0.5), (0.1, 0.3, 0.2, -1.0)],
        [(3.0, 4.0), (-3.0, -4.0)],  # opposite
        [(1.0, 1.0), (4.0, 4.0)],  # of one direction
    ],
)
def test_the_spherical_way_has_even_angles_and_even_lengths(ends):
    one, other = torch.tensor(ends)
    path = torch.stack([slerp(one, other, step) for step in torch.linspace(0, 1, 11)])
    torch.testing.assert_close(path[[0, -1]], torch.stack([one, other]), atol=1e-5, rtol=0)
    steps = np.linspace(0, 1, 11)
    lengths = np.linalg.norm(ends[0]) + steps * (np.linalg.norm(ends[1]) - np.linalg.norm(ends[0]))
    np.testing.assert_allclose(path.norm(dim=1), lengths, rtol=1e-5)
    unit = (path / path.norm(dim=1, keepdim=True)).double().numpy()
    turns = np.arccos((unit[1:] * unit[:-1]).sum(1).clip(-1, 1))
    whole = np.arccos(np.clip(np.dot(*ends) / lengths[0] / lengths[-1], -1, 1))
    np.testing.assert_allclose(turns, whole / 10, atol=1e-3)
    assert np.linalg.matrix_rank(unit, tol=1e-4) <= 2  # in the plane of the two codes
    if whole < 3 and lengths[0] == pytest.approx(lengths[-1]):  # Shoemake's formula
        sines = [
            np.sin(whole * (1 - step)) * np.array(ends[0]) + np.sin(whole * step) * np.array(ends[1]) for step in steps
        ]
        np.testing.assert_allclose(path, np.array(sines) / np.sin(whole), atol=1e-5)


def test_the_spherical_way_from_and_to_zero_is_straight():
    zero, code, step = torch.zeros(3), torch.tensor([1.0, -2.0, 2.0]), torch.tensor(0.25)
    torch.testing.assert_close(slerp(zero, code, step), 0.25 * code)
    torch.testing.assert_close(slerp(code, zero, step), 0.75 * code)
    assert not slerp(zero, zero, step).any()


def test_a_latent_line_has_straight_ways_alone():
    figure = FIGURES["interpolations"](VAE((1, 8, 8), latent_dim=1), torch.rand(10, 1, 8, 8))
    assert texts(figure.axes[0])[1] == ["straight"] * 5


def test_latent_usage_is_sorted_and_marks_what_is_active():
    vae, images = VAE((1, 8, 8), latent_dim=3), torch.rand(50, 1, 8, 8)
    with torch.no_grad():
        vae.posterior.mean.weight[0] *= 30
        vae.posterior.mean.weight[1].zero_()
        vae.posterior.mean.weight[2] *= 10
        vae.posterior.mean.bias[1] = 9.0  # much KL, but the same for every image
    (axes,) = FIGURES["latent_usage"](vae, images).axes
    with torch.no_grad():
        kl = vae.kl_per_dimension(vae.encode(images)).mean(0)
    bars = sorted((bar.get_x(), bar.get_height(), bar.get_hatch()) for bar in axes.patches)
    np.testing.assert_allclose([height for _, height, _ in bars], kl.sort(descending=True).values, rtol=1e-5)
    assert [hatch for *_, hatch in bars] == ["///", None, None]
    assert texts(axes)[0] == ["z₂", "z₁", "z₃"]
    assert axes.get_title() == f"2 of 3 latent variables are active; {kl.sum():.1f} nats in all"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["active: variance of the posterior means above 0.01", "not active"]


def test_traversals_show_the_image_that_stays():
    vae, images = VAE((1, 24, 24), latent_dim=3), torch.rand(10, 1, 24, 24)
    figure = FIGURES["traversals"](vae, images)
    (corner,) = figure.axes[0].child_axes
    np.testing.assert_array_equal(corner.images[0].get_array(), shown(images, 3)[0])
    assert "the others stay at the code of the image at the top left" in figure.get_suptitle()
    FigureCanvasAgg(figure).draw()
    place, grid = corner.get_window_extent(), figure.axes[0].get_window_extent()
    assert 0 < place.x0 < place.x1 < grid.x0
    assert grid.y1 < place.y0 < place.y1 < figure.bbox.height
    assert (place.width, place.height) == pytest.approx((72, 72))


def collapsed(rank=0, scale=1.0):
    """A model with that many latent variables that depend on the image at all."""
    torch.manual_seed(0)
    vae = VAE((1, 8, 8), latent_dim=4)
    with torch.no_grad():
        vae.posterior.mean.weight[:rank] *= scale
        vae.posterior.mean.weight[rank:].zero_()
    return vae


def scatter_collapsed(sender):
    """Send how each figure of a posterior that is collapsed, or nearly so, went."""
    for arguments in ((0, 1.0), (1, 1e-9)):
        try:
            FIGURES["latent_scatter"](collapsed(*arguments), torch.rand(50, 1, 8, 8), None, None)
        except NotApplicable as reason:
            sender.send(str(reason))
    for arguments in ((1, 1.0), (1, 1e-3), (2, 1e4)):
        sender.send(len(FIGURES["latent_scatter"](collapsed(*arguments), torch.rand(50, 1, 8, 8), None, None).axes))


def test_a_collapsed_posterior_is_not_scattered():
    """In a process of its own, which t-SNE would end by signal 11."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = fork(scatter_collapsed, sender)
    sender.close()
    process.join()
    assert process.exitcode == 0
    reason = "latent_scatter needs posterior means that differ; this posterior has collapsed"
    assert [receiver.recv() for _ in range(5)] == [reason, reason, 1, 1, 1]


def test_names_of_classes_do_not_overlap():
    vae, images = VAE((1, 8, 8)), torch.rand(200, 1, 8, 8)
    labels, classes = torch.arange(200) % 10, tuple(f"class {i}" for i in range(10))
    figure = FIGURES["latent_scatter"](vae, images, labels, classes)  # of one place, since the labels say nothing
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    medians = torch.stack([code(vae, images)[labels == label].median(0).values for label in range(10)])
    apart = medians * 100  # where there is space, each stays in its place
    assert torch.equal(spread(apart, torch.full((10, 2), 1e-3)), apart)


MANY = [f"a long name, {i}" for i in range(1_000)]


@pytest.mark.parametrize(
    ("latent_dim", "classes"), [(2, [f"class {i}" for i in range(60)]), (2, ["W" * 60, "m" * 60]), (2, MANY), (1, MANY)]
)
def test_the_legend_stays_inside_of_the_figure(classes, latent_dim):
    vae, images = VAE((1, 8, 8), latent_dim), torch.rand(1_000, 1, 8, 8)
    figure = FIGURES["latent_scatter"](vae, images, torch.arange(1_000) % len(classes), classes)
    FigureCanvasAgg(figure).draw()
    (axes,), (width, height) = figure.axes, figure.bbox.size
    assert axes.get_window_extent().width > 550
    for part in (axes.get_legend(), *axes.texts):
        box = part.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
    names = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert len(names) == min(len(classes), 101)
    if len(classes) > 100:
        assert names[-1] == "and 900 more"


def test_dots_are_small_and_transparent_and_many_classes_have_colours_of_their_own():
    vae, images = VAE((1, 8, 8)), torch.rand(10_000, 1, 8, 8)
    labels = torch.arange(10_000) % 30
    (axes,) = FIGURES["latent_scatter"](vae, images, labels, tuple(map(str, range(30)))).axes
    assert axes.collections[0].get_sizes() <= 4
    assert axes.collections[0].get_alpha() <= 0.5
    assert len({tuple(colour) for colour in axes.collections[0].get_facecolor()}) == 30
