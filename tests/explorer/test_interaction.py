"""The page as a person uses it: mouse, finger, keyboard, window."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from explorer_models import equation_1, make_images, make_model
from PIL import Image, ImageColor

from vae import VAE
from vae.explorer import explorer_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages():
    """HTML of a few models, each made once: by data set and latent size."""
    made = {}

    def page(kind, likelihood="bernoulli", latent_dim=2, network="mlp", labelled=True):
        key = (kind, likelihood, latent_dim, network, labelled)
        if key not in made:
            images = make_images(kind, 120)
            vae = make_model(kind, network, likelihood, images, latent_dim, steps=80)
            labels = torch.arange(120) % 3 if labelled else None
            made[key] = explorer_page(vae, images, labels, ["ant", "bee", "cat"] if labelled else None, kind)
        return made[key]

    return page


def z_of(page):
    return np.array(page.evaluate("Array.from(z)"))


def pixels(page, selector):
    """What a canvas holds: RGBA, row by row."""
    content = page.locator(selector).evaluate("canvas => canvas.toDataURL().split(',')[1]")
    return np.array(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA")).astype(int).ravel()


def decode(page, z):
    return np.array(page.evaluate("z => Array.from(explorer.decode(z))", list(z)))


def settle(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def on_map(page, x, y):
    """A place on the map in shares of its sides, from the top left: in the window, and as a position on the plane."""
    box, half = page.locator("#map").bounding_box(), page.evaluate("map.half")
    return (box["x"] + x * box["width"], box["y"] + y * box["height"]), np.array([2 * x - 1, 1 - 2 * y]) * half


def move(page, x, y):
    place, position = on_map(page, x, y)
    page.mouse.move(*place)
    settle(page)
    return position


def click(page, x, y):
    position = move(page, x, y)
    page.mouse.click(*on_map(page, x, y)[0])
    settle(page)
    return position


def assert_decoded(page):
    np.testing.assert_array_equal(pixels(page, "#decoded"), decode(page, z_of(page)))


# ---------------------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical"])
def test_the_image_follows_the_mouse(open_page, pages, likelihood):
    page = open_page(pages("punks", likelihood))
    for x, y in ((0.3, 0.4), (0.9, 0.1), (0.5, 0.8)):
        place = move(page, x, y)
        np.testing.assert_allclose(z_of(page), place, atol=0.03)
        assert_decoded(page)
        nearest = page.evaluate("findNearest()")
        assert f"#{nearest}" in page.inner_text("#nearest-name")
        distances = page.evaluate(
            "Array.from({length: count}, (_, i) => Math.hypot(...code(i).map((v, j) => v - z[j])))"
        )
        assert nearest == np.argmin(distances)
        np.testing.assert_array_equal(
            pixels(page, "#nearest canvas"), page.evaluate("Array.from(toRGBA(testImage(findNearest())))")
        )


def test_a_click_holds_z_and_another_lets_go(open_page, pages):
    page = open_page(pages("mnist"))
    place = click(page, 0.3, 0.3)
    move(page, 0.7, 0.6)
    np.testing.assert_allclose(z_of(page), place, atol=0.03)
    assert "held" in page.inner_text("#map-hint")
    click(page, 0.6, 0.6)
    np.testing.assert_allclose(move(page, 0.2, 0.2), z_of(page), atol=0.03)
    click(page, 0.4, 0.4)
    page.keyboard.press("Escape")
    np.testing.assert_allclose(move(page, 0.8, 0.2), z_of(page), atol=0.03)


def test_dragging_moves_a_held_z(open_page, pages):
    page = open_page(pages("mnist"))
    click(page, 0.3, 0.3)
    page.mouse.down()
    place = move(page, 0.7, 0.2)
    page.mouse.up()
    move(page, 0.1, 0.1)
    np.testing.assert_allclose(z_of(page), place, atol=0.03)


def test_keys_move_draw_and_copy(open_page, pages):
    page = open_page(pages("mnist"), permissions=["clipboard-read", "clipboard-write"])
    start = z_of(page)
    for key, step in (
        ("ArrowRight", [0.1, 0]),
        ("Shift+ArrowUp", [0, 0.5]),
        ("ArrowLeft", [-0.1, 0]),
        ("ArrowDown", [0, -0.1]),
    ):
        page.keyboard.press(key)
        start = start + step
        np.testing.assert_allclose(z_of(page), start, atol=1e-9)
    page.keyboard.press("r")
    settle(page)
    assert not np.allclose(z_of(page), start)
    assert_decoded(page)
    page.keyboard.press("c")
    page.wait_for_function("document.getElementById('copy').textContent === 'Copied'")
    np.testing.assert_allclose(json.loads(page.evaluate("navigator.clipboard.readText()")), z_of(page), atol=1e-5)
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_a_number_starts_from_that_test_image(open_page, pages):
    page = open_page(pages("mnist"))
    page.keyboard.press("n")
    page.keyboard.type("17")
    page.keyboard.press("Enter")
    settle(page)
    np.testing.assert_allclose(z_of(page), page.evaluate("Array.from(code(17))"))
    assert "#17 · cat" in page.inner_text("#nearest-name")
    page.fill("#start-number", "120")
    assert page.get_attribute("#start-number", "aria-invalid") == "true"
    np.testing.assert_allclose(z_of(page), page.evaluate("Array.from(code(17))"))
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    settle(page)
    page.click("#nearest")
    np.testing.assert_allclose(z_of(page), page.evaluate("Array.from(code(nearest))"))


def test_a_path_between_two_clicks_plays_and_pauses(open_page, pages):
    page = open_page(pages("mnist"))
    page.click("#path")
    start, end = click(page, 0.3, 0.3), click(page, 0.8, 0.6)
    seen = []
    for _ in range(5):
        page.wait_for_timeout(150)
        seen.append(z_of(page))
    assert len({tuple(z) for z in seen}) > 2
    for z in seen:
        share = (z - start) / (end - start)
        assert abs(share[0] - share[1]) < 0.03
        assert -0.02 <= share[0] <= 1.02
    page.keyboard.press("Space")
    settle(page)
    before = z_of(page)
    page.wait_for_timeout(200)
    np.testing.assert_array_equal(z_of(page), before)
    page.focus("#path-position")
    page.keyboard.press("End")
    settle(page)
    np.testing.assert_allclose(z_of(page), end, atol=0.03)
    assert_decoded(page)
    page.keyboard.press("p")
    assert page.get_attribute("#path", "aria-pressed") == "false"


def test_a_path_by_keys_between_two_test_images(open_page, pages):
    page = open_page(pages("punks", "categorical", 6, labelled=False), reduced_motion="reduce")
    page.keyboard.press("p")
    for number in ("3", "40"):
        page.keyboard.press("n")
        page.keyboard.type(number)
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
    assert "Paused" in page.inner_text("#path-hint")
    ends = page.evaluate("path.ends.map((end) => Array.from(end))")
    np.testing.assert_allclose(ends, page.evaluate("[3, 40].map((i) => Array.from(code(i)))"))
    page.keyboard.press("Space")
    page.wait_for_function("path.position > 0.02")


def test_samples_are_decoded_draws_and_lead_there(open_page, pages):
    page = open_page(pages("mnist"))
    page.wait_for_timeout(300)
    first = page.evaluate("samples.map((s) => Array.from(s))")
    page.keyboard.press("s")
    page.wait_for_timeout(500)
    drawn = np.array(page.evaluate("samples.map((s) => Array.from(s))"))
    assert drawn.shape == (24, 2)
    assert not np.allclose(drawn, first)
    assert page.locator("#sample-list canvas").count() == 24
    for i in (0, 23):
        found = pixels(page, f"#sample-list button:nth-child({i + 1}) canvas")
        np.testing.assert_array_equal(found, decode(page, drawn[i]))
    page.click("#sample-list button:nth-child(24)")
    settle(page)
    np.testing.assert_allclose(z_of(page), drawn[23])
    assert_decoded(page)


def test_sliders_stand_for_the_active_dimensions_by_kl(open_page, pages):
    page = open_page(pages("digits", "bernoulli", 6))
    kl, active = page.evaluate("[description.kl, description.active]")
    order = [j for j in np.argsort(kl)[::-1] if active[j]]
    assert page.locator("#slider-list input").count() == len(order)
    labels = page.locator("#slider-list label").all_inner_texts()
    for j, text in zip(order, labels, strict=True):
        assert f"{kl[j]:.2f} nats" in text
    before = z_of(page)
    page.locator("#slider-list input").first.focus()
    page.keyboard.press("End")
    settle(page)
    moved = z_of(page) - before
    assert z_of(page)[order[0]] == 4
    assert np.flatnonzero(moved).tolist() == [order[0]]
    assert_decoded(page)


def test_the_plane_of_the_map_goes_through_z(open_page, pages):
    page = open_page(pages("digits", "bernoulli", 6))
    before = z_of(page)
    place = move(page, 0.7, 0.3)
    axes = np.array(page.evaluate("map.plane.axes"))
    outside = np.eye(6) - axes.T @ axes
    np.testing.assert_allclose(outside @ z_of(page), outside @ before, atol=1e-5)
    np.testing.assert_allclose(page.evaluate("map.position(z)"), place, atol=0.03)
    assert_decoded(page)


def test_one_latent_variable(open_page, pages):
    page = open_page(pages("digits", "bernoulli", 1))
    place = move(page, 0.8, 0.2)
    np.testing.assert_allclose(z_of(page), place[:1], atol=0.03)
    page.keyboard.press("ArrowUp")
    np.testing.assert_allclose(z_of(page), place[:1], atol=0.03)
    assert_decoded(page)


# ---------------------------------------------------------------------------------------------------------- encode


def on_pad(page, x, y):
    box = page.locator("#pad").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def draw_line(page, start, end):
    page.mouse.move(*on_pad(page, *start))
    page.mouse.down()
    page.mouse.move(*on_pad(page, *end), steps=8)
    page.mouse.up()
    settle(page)


def pad_image(page, kind_shape):
    channels, height, width = kind_shape
    return pixels(page, "#pad canvas").reshape(height, width, 4)[..., :channels]


def assert_encoded(page):
    """What the page says of the drawing is what the model says of it."""
    drawn = pixels(page, "#pad canvas").tolist()
    q = page.evaluate("pixels => explorer.encode(pixels)", drawn)
    bound = page.evaluate("pixels => explorer.elbo(pixels, eps)", drawn)
    for name in ("elbo", "reconstruction", "kl"):
        said = float(page.inner_text(f"#bound-{name}").replace("−", "-"))
        assert abs(said - bound[name]) < 0.051
    np.testing.assert_array_equal(pixels(page, "#reconstruction"), decode(page, q["mean"]))
    np.testing.assert_allclose(page.evaluate("Array.from(bound.q.mean)"), q["mean"], atol=1e-9)


def test_drawing_a_digit_with_the_mouse(open_page, pages):
    page = open_page(pages("mnist"))
    page.click("#clear")
    settle(page)
    assert not pad_image(page, (1, 28, 28)).any()
    before = page.evaluate("Array.from(bound.q.mean)")
    draw_line(page, (0.5, 0.2), (0.5, 0.8))
    image = pad_image(page, (1, 28, 28))[..., 0]
    assert set(np.unique(image)) == {0, 255}  # the data is black and white
    rows, columns = np.nonzero(image)
    assert rows.min() in (4, 5)
    assert rows.max() in (22, 23)
    assert 12 <= columns.min() <= columns.max() <= 16
    assert not np.allclose(page.evaluate("Array.from(bound.q.mean)"), before)
    assert_encoded(page)
    page.click("#erase")
    draw_line(page, (0.5, 0.5), (0.5, 0.52))
    assert (pad_image(page, (1, 28, 28)) > 0).sum() < (image > 0).sum()
    for _ in range(2):
        page.click("#undo")
    settle(page)
    assert not pad_image(page, (1, 28, 28)).any()


def test_a_grey_brush_is_soft(open_page, pages):
    page = open_page(pages("digits"))
    page.click("#clear")
    draw_line(page, (0.2, 0.3), (0.8, 0.6))
    image = pad_image(page, (1, 8, 8))
    assert ((image > 0) & (image < 255)).any()
    assert_encoded(page)


def test_painting_a_punk_with_colours_of_the_palette(open_page, pages):
    page = open_page(pages("punks", "categorical"))
    buttons = page.locator("#palette button")
    assert buttons.count() == 24
    buttons.nth(5).click()
    colour = ImageColor.getrgb(buttons.nth(5).get_attribute("title"))
    page.mouse.click(*on_pad(page, 2.5 / 24, 3.5 / 24))
    settle(page)
    assert tuple(pad_image(page, (3, 24, 24))[3, 2]) == colour
    assert_encoded(page)
    other = tuple(pad_image(page, (3, 24, 24))[20, 20])
    page.mouse.click(*on_pad(page, 20.5 / 24, 20.5 / 24), button="right")
    assert (
        page.locator("#palette button[aria-pressed=true]").get_attribute("title") == "#" + bytes(map(int, other)).hex()
    )
    page.mouse.click(*on_pad(page, 2.5 / 24, 3.5 / 24))
    settle(page)
    assert tuple(pad_image(page, (3, 24, 24))[3, 2]) == other


def test_painting_on_a_photograph(open_page, pages, monkeypatch):
    monkeypatch.setattr("vae.explorer.page.MAX_COLOURS", 100)
    page = open_page(pages("folder", "gaussian", 4))
    page.locator("#palette input").fill("#ff0000")
    page.mouse.click(*on_pad(page, 14.5 / 28, 10.5 / 20))
    settle(page)
    assert tuple(pad_image(page, (3, 20, 28))[10, 14]) == (255, 0, 0)
    assert_encoded(page)


def test_a_test_image_is_loaded_and_changed(open_page, pages):
    page = open_page(pages("mnist"))
    page.fill("#load-number", "12")
    page.keyboard.press("Enter")
    settle(page)
    np.testing.assert_array_equal(pixels(page, "#pad canvas"), page.evaluate("Array.from(toRGBA(testImage(12)))"))
    np.testing.assert_allclose(
        page.evaluate("Array.from(bound.q.mean)"), page.evaluate("Array.from(code(12))"), atol=1e-4
    )
    assert_encoded(page)
    draw_line(page, (0.1, 0.1), (0.2, 0.1))
    assert (pixels(page, "#pad canvas") != page.evaluate("Array.from(toRGBA(testImage(12)))")).any()
    assert_encoded(page)


def test_drawing_with_the_keyboard(open_page, pages):
    page = open_page(pages("mnist"))
    page.click("#clear")
    page.keyboard.press("d")
    assert page.locator("#pad-cursor").is_visible()
    z = z_of(page)
    page.keyboard.press("Space")
    for _ in range(5):
        page.keyboard.press("Shift+ArrowDown")
    settle(page)
    image = pad_image(page, (1, 28, 28))[..., 0]
    assert (image[14:20, 14] == 255).all()
    np.testing.assert_array_equal(z_of(page), z)
    page.keyboard.press("Delete")
    settle(page)
    assert pad_image(page, (1, 28, 28))[19, 14] == 0
    page.keyboard.press("Control+z")
    settle(page)
    np.testing.assert_array_equal(pad_image(page, (1, 28, 28))[..., 0], image)
    assert_encoded(page)


def test_the_ellipse_is_two_standard_deviations(open_page, pages):
    """Its leftmost and topmost points on the map, by the colour of the accent."""
    page = open_page(pages("digits", "bernoulli", 2))
    page.mouse.move(5, 5)
    drawn = page.evaluate("""() => {  // and read at once: the page draws its own state in the next frame
        map.drawOverlay({z: [9, 9], held: false, nearest: null, posterior: bound.q, sample: bound.q.mean, path: []});
        const {width, height} = map.overlay;
        return Array.from(map.overlay.getContext("2d").getImageData(0, 0, width, height).data);
    }""")
    side = page.evaluate("map.overlay.width")
    image = np.array(drawn).reshape(side, side, 4)
    accent = ImageColor.getrgb(page.evaluate("map.look.accent").strip())
    rows, columns = np.nonzero((np.abs(image[..., :3].astype(int) - accent).max(-1) < 8) & (image[..., 3] > 200))
    mean, std, half = page.evaluate("[Array.from(bound.q.mean), Array.from(bound.q.std), map.half]")
    for k, places in enumerate((columns, side - 1 - rows)):
        low, high = (2 * np.array([places.min(), places.max()]) / side - 1) * half
        margin = 5 * half / side
        assert abs(low - (mean[k] - 2 * std[k])) < margin
        assert abs(high - (mean[k] + 2 * std[k])) < margin


def test_the_paper_shows_the_numbers_of_the_moment(open_page, pages):
    page = open_page(pages("mnist", "bernoulli", 2))
    q, eps = page.evaluate("[{mean: Array.from(bound.q.mean), std: Array.from(bound.q.std)}, Array.from(eps)]")
    rows = [
        [cell.replace("−", "-") for cell in row.split("\t")]
        for row in page.locator("#dimensions tbody tr").all_inner_texts()
    ]
    for j, (name, mean, std, noise, z, kl) in enumerate(rows):
        assert name == "z" + "₁₂"[j]
        np.testing.assert_allclose(
            [float(mean), float(std), float(noise)], [q["mean"][j], q["std"][j], eps[j]], atol=6e-4
        )
        np.testing.assert_allclose(float(z), q["mean"][j] + q["std"][j] * eps[j], atol=6e-4)
        expected = 0.5 * (q["mean"][j] ** 2 + q["std"][j] ** 2 - 1) - np.log(q["std"][j])
        np.testing.assert_allclose(float(kl.strip()), expected, atol=6e-3)
    page.keyboard.press("e")
    settle(page)
    assert not np.allclose(page.evaluate("Array.from(eps)"), eps)
    assert page.evaluate("Array.from(bound.q.mean)") == q["mean"]
    np.testing.assert_array_equal(pixels(page, "#step-p"), decode(page, page.evaluate("Array.from(bound.z)")))
    assert_encoded(page)
    equations = page.locator(".paper a").all_inner_texts()
    assert equations == ["eq. 9", "eq. 4", "eq. 11", "eq. 10", "eq. 1", "App. B"]
    page.click(".paper summary")
    assert not page.locator("#dimensions").is_visible()


def wait_until_right(page):
    page.wait_for_function("truth.isReady && !truth.waiting.length", timeout=60_000)
    settle(page)
    assert page.inner_text("#gap-state") == ""
    return {term: float(page.inner_text(f"#gap-{term}").replace("−", "-")) for term in ("logMarginal", "elbo", "gap")}


def test_the_gap_follows_the_drawing_and_its_numbers_add_up(open_page):
    torch.manual_seed(0)
    images = make_images("mnist", 120)
    vae = make_model("mnist", "mlp", "bernoulli", images, steps=80)
    page = open_page(explorer_page(vae, images))
    before = None
    for _ in range(2):
        shown = wait_until_right(page)
        drawn = pixels(page, "#pad canvas").reshape(28, 28, 4)[..., 0]
        expected, error, mean = equation_1(vae, torch.from_numpy(drawn).float().unsqueeze(0) / 255)
        np.testing.assert_allclose(
            [shown[term] for term in ("logMarginal", "elbo", "gap")], expected, rtol=0, atol=0.05 + error
        )
        assert shown["logMarginal"] == pytest.approx(shown["elbo"] + shown["gap"], abs=1e-9)
        side = page.evaluate("map.truth.width")
        density = pixels(page, "#map-truth").reshape(side, side, 4)[..., 3]
        rows, columns = np.indices(density.shape)
        half = page.evaluate("map.half")
        centre = [((2 * (places * density).sum() / density.sum() + 1) / side - 1) * half for places in (columns, rows)]
        np.testing.assert_allclose([centre[0], -centre[1]], mean, atol=0.1)
        assert (pixels(page, "#truth") > 0).any()
        assert shown != before
        before = shown
        draw_line(page, (0.2, 0.3), (0.8, 0.3))


def test_a_stroke_is_answered_within_a_frame(open_page, capsys):
    """The time of each frame while one draws, on a model of the paper's size; that of a busy machine is printed."""
    images = make_images("mnist", 120)
    vae = make_model("mnist", "mlp", "bernoulli", images, hidden_dims=(500,))
    page = open_page(explorer_page(vae, images))
    wait_until_right(page)
    times = page.evaluate("""async () => {
        const times = [];
        for (let i = 0; i < 60; i++) {
            pad.stroke([4 + i / 3, 8 + 6 * Math.sin(i / 6)], [4 + (i + 1) / 3, 8 + 6 * Math.sin((i + 1) / 6)]);
            changed.clear();
            ["x", "truth"].forEach((part) => changed.add(part));
            const before = performance.now();
            draw(before);
            times.push(performance.now() - before);
            await new Promise(requestAnimationFrame);
        }
        return times;
    }""")
    with capsys.disabled():
        print(f"\na frame of a stroke: {np.median(times):.0f} ms, at most {max(times):.0f} ms")
    assert np.median(times) < 50


# -------------------------------------------------------------------------------------------------- the whole page


def test_a_label_is_emphasised(open_page, pages):
    page = open_page(pages("mnist"))
    before = pixels(page, "#map-base")
    for pressed in ("true", "false"):
        page.click("#legend button:nth-child(2)")
        settle(page)
        assert page.get_attribute("#legend button:nth-child(2)", "aria-pressed") == pressed
        assert np.array_equal(pixels(page, "#map-base"), before) == (pressed == "false")


@pytest.mark.parametrize("key", [("mnist", "bernoulli", 2), ("punks", "categorical", 6), ("folder", "gaussian", 4)])
def test_nothing_shifts_while_it_loads_and_while_it_is_used(browser, tmp_path, pages, key):
    for width, height in ((1440, 900), (390, 844)):
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.add_init_script("""window.shifts = [];
            new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((entry) => entry.value)))
                .observe({type: "layout-shift", buffered: true});""")
        path = tmp_path / "page.html"
        path.write_text(pages(*key, labelled=key[0] != "punks"))
        page.goto(path.as_uri())
        page.evaluate("explorer.ready")
        page.wait_for_timeout(300)
        height = page.evaluate("document.documentElement.scrollHeight")
        for i in range(6):
            move(page, 0.1 + 0.15 * i, 0.9 - 0.13 * i)
        page.keyboard.press("e")
        page.wait_for_timeout(100)
        assert sum(page.evaluate("window.shifts")) == 0
        assert page.evaluate("document.documentElement.scrollHeight") == height
        context.close()


@pytest.mark.parametrize("width", [360, 390, 768, 1024, 1440, 1920])
def test_no_width_needs_scrolling_sideways(open_page, pages, width):
    page = open_page(pages("punks", "categorical", 6, labelled=False), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#map", "#decoded", "#pad", "#reconstruction"):
        box = page.locator(selector).bounding_box()
        assert box["width"] >= 120
        assert abs(box["width"] / box["height"] - 1) < 0.02


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_the_bars_of_the_kl_are_seen_and_are_in_its_proportion(open_page, pages, width):
    page = open_page(pages("digits", "bernoulli", 6), width=width)
    kl = np.array(page.evaluate("Array.from(bound.klPerDimension)"))
    bars = np.array(page.evaluate("dimensions.map((j) => rows.get(j).bar.offsetWidth)"))
    kl = kl[page.evaluate("dimensions")]
    assert bars.max() >= 30
    np.testing.assert_allclose(bars / bars.max(), kl / kl.max(), atol=1 / bars.max())
    for j in range(6):
        text, bar = (
            page.evaluate(f"rows.get({j}).{part}.getBoundingClientRect().toJSON()") for part in ("text", "bar")
        )
        assert text["right"] < bar["left"] or text["bottom"] <= bar["top"]
        assert bar["right"] <= width


@pytest.mark.parametrize("shape", [(1, 1, 600), (1, 600, 1), (3, 32, 512), (1, 400, 300)])
def test_images_of_any_shape_fit_on_the_page(open_page, shape):
    page = open_page(
        explorer_page(VAE(shape, 2, hidden_dims=(4,)).eval(), torch.rand(6, *shape).mul(255).round() / 255)
    )
    page.wait_for_timeout(300)
    for selector in ("#pad", "#decoded", "#reconstruction"):
        box = page.locator(selector).bounding_box()
        assert 0.5 <= box["width"] / box["height"] <= 4.1
    assert max(page.evaluate("[$('map-manifold').width, $('map-manifold').height]")) <= 4_000
    assert page.evaluate("document.documentElement.scrollHeight") < 3_000
    assert (pixels(page, "#map-manifold") > 0).any()
    draw_line(page, (0.2, 0.5), (0.8, 0.5))
    assert_encoded(page)


def test_the_bound_of_the_drawing_stands_beside_that_of_all_images(open_page, pages):
    page = open_page(pages("mnist"))
    mean = page.evaluate("description.meanBound")
    expected = f"Mean of the 120 images: ELBO {mean['elbo']:.1f}, reconstruction {mean['reconstruction']:.1f}"
    assert page.inner_text("#bound-mean").replace("−", "-") == f"{expected}, KL {mean['kl']:.1f}."
    bounds = np.array(
        page.evaluate("""Array.from({length: count}, (_, i) => {
        const image = testImage(i);
        return Array.from({length: 20}, () => vae.elbo(image, standardNormal(latentDim)).elbo);
    })""")
    )
    variance = bounds.var(axis=1, ddof=1).sum() / 120**2  # of a mean over the images with one draw for each
    assert abs(bounds.mean() - mean["elbo"]) < 5 * np.sqrt(variance * (1 + 1 / 20))


def test_a_window_that_changes_its_size(open_page, pages):
    page = open_page(pages("mnist"))
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        settle(page)
        page.wait_for_timeout(100)
        assert page.evaluate("map.size") == page.locator("#map").evaluate("element => element.clientWidth")
        np.testing.assert_allclose(move(page, 0.7, 0.4), z_of(page), atol=0.03)
        assert page.locator("#decoded").evaluate("canvas => [canvas.width, canvas.height]") == [28, 28]


def test_dark_and_light(open_page, pages):
    page = open_page(pages("mnist"), color_scheme="light")
    script = "([property]) => getComputedStyle(document.body)[property].match(/\\d+/g).slice(0, 3).map(Number)"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        settle(page)
        ground, ink = (sum(page.evaluate(script, [name])) for name in ("backgroundColor", "color"))
        assert (ground > ink) == (scheme == "light")
        assert page.evaluate("map.look.ink") == page.evaluate(
            "getComputedStyle(document.documentElement).getPropertyValue('--ink')"
        )


def test_a_finger_on_a_phone(open_page, pages):
    page = open_page(pages("mnist"), width=390, height=844, has_touch=True, is_mobile=True, device_scale_factor=2)
    touch = page.context.new_cdp_session(page)

    def finger(kind, *place):
        points = [{"x": place[0], "y": place[1]}] if place else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        settle(page)

    finger("touchStart", *on_map(page, 0.3, 0.3)[0])
    for x, y in ((0.4, 0.5), (0.6, 0.8)):
        place, position = on_map(page, x, y)
        finger("touchMove", *place)
        np.testing.assert_allclose(z_of(page), position, atol=0.06)
    finger("touchEnd")
    assert page.evaluate("scrollY") == 0
    assert_decoded(page)
    page.locator("#clear").tap()
    page.locator("#pad").scroll_into_view_if_needed()
    finger("touchStart", *on_pad(page, 0.3, 0.3))
    finger("touchMove", *on_pad(page, 0.7, 0.7))
    finger("touchEnd")
    assert (pad_image(page, (1, 28, 28)) > 0).sum() > 10
    assert_encoded(page)


def test_every_control_is_reached_by_tab_and_has_a_name(open_page, pages):
    page = open_page(pages("punks", "categorical", 6, labelled=False))
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    for control in (
        "map",
        "nearest",
        "copy",
        "random",
        "path",
        "start-number",
        "pad",
        "brush",
        "undo",
        "load-number",
        "epsilon",
        "sample",
        "z₁",
    ):
        assert control in reached, control
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, canvas[role], [role=application]")]
        .filter((e) => !e.hidden && !(e.getAttribute("aria-label") || e.textContent.trim() || e.closest("label")))
        .map((e) => e.outerHTML)""")
    assert nameless == []
    page.keyboard.press("r")
    page.wait_for_function("$('announcer').textContent.includes('nearest image')")


@pytest.mark.parametrize(
    ("likelihood", "network"), [("bernoulli", "mlp"), ("categorical", "mlp"), ("bernoulli", "conv")]
)
def test_frames_come_in_time(open_page, pages, capsys, likelihood, network):
    """Frames a second while the pointer moves in each; a busy machine draws fewer, so the number is printed."""
    page = open_page(pages("punks", likelihood, 2, network))
    page.wait_for_timeout(1_000)
    frames, decoding = page.evaluate("""async () => {
        const box = map.element.getBoundingClientRect(), start = performance.now();
        let frames = 0, now = start, decoding = 0;
        while (now - start < 2000) {
            const [x, y] = [0.5 + 0.4 * Math.sin(now / 300), 0.5 + 0.4 * Math.cos(now / 210)];
            map.element.dispatchEvent(new PointerEvent("pointermove",
                { clientX: box.left + x * box.width, clientY: box.top + y * box.height, pointerType: "mouse" }));
            now = await new Promise(requestAnimationFrame);
            frames++;
            const before = performance.now();
            explorer.decode(z);
            decoding += performance.now() - before;
        }
        return [(1000 * frames) / (now - start), decoding / frames];
    }""")
    with capsys.disabled():
        print(f"\npunks, {likelihood}, {network}: {frames:.0f} frames a second; {decoding:.1f} ms to decode an image")
    assert_decoded(page)
    assert frames > 10
