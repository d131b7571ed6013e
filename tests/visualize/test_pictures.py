"""The pictures are PNG files whose tiles and colours say what their docstrings promise."""

import sys

import numpy as np
import pytest
from PIL import Image

from tinyconv import plotting
from tinyconv.visualize import (
    plot_features,
    plot_filters,
    plot_grad_cam,
    plot_saliency,
)

pytest.importorskip("matplotlib")

RED, BLUE, YELLOW = (255, 0, 0), (0, 0, 255), (253, 231, 36)  # the ends of bwr and of viridis


def photo(channels=3, height=12, width=12, value=128):
    return np.full((height, width, channels), value, np.uint8)


def read(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def has(picture, colour):
    return (picture == colour).all(axis=2).any()


@pytest.fixture
def drawn(monkeypatch):
    """The figure of the picture that was written last, and its title."""
    last = {}

    def save(figure, path, title):
        last.update(figure=figure, title=title)
        write(figure, path, title)

    write = plotting.save
    monkeypatch.setattr(plotting, "save", save)
    return last


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_features_are_the_photo_and_the_most_active_channels(tmp_path, drawn):
    maps = np.arange(40)[:, None, None] * np.array([[0.0, 1.0], [2.0, 3.0]]) + 1
    plot_features(maps, photo(), tmp_path / "f.png", "$layer$")
    assert labels(drawn["figure"]) == ["photo", *(str(39 - i) for i in range(32))]
    assert drawn["title"] == r"\$layer\$" + "\nthe photo and the 32 most active channels, by number"
    picture = read(tmp_path / "f.png")
    assert picture.shape == (120 * 8.6, 120 * 10.8, 3)  # 5 rows of 7 tiles
    assert has(picture, (128, 128, 128))
    assert has(picture, YELLOW)
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("channels", [1, 3])
def test_signed_features_are_blue_and_red(tmp_path, drawn, channels):
    maps = np.zeros((3, 4, 6))  # one that is never active, too
    maps[1, 0, 0], maps[2] = -0.01, 5
    plot_features(maps, photo(channels, 8, 12), tmp_path / "f.png")
    assert labels(drawn["figure"]) == ["photo", "1", "0", "2"]
    assert drawn["title"].endswith("all channels, by number")
    picture = read(tmp_path / "f.png")
    assert has(picture, RED)
    assert has(picture, BLUE)


def test_filters_in_colour(tmp_path, drawn):
    weight = np.zeros((70, 3, 2, 2))
    weight[0, 0, 0, 0], weight[0, 2, 1, 1] = 7, 7  # red and blue; the other filters are all zero
    plot_filters(weight, tmp_path / "f.png")
    assert labels(drawn["figure"]) == [str(i) for i in range(64)]
    assert drawn["title"] == "filters (the first 64 of 70)"
    picture = read(tmp_path / "f.png")
    assert has(picture, RED)
    assert has(picture, BLUE)


@pytest.mark.parametrize(("shape", "tiles"), [((6, 1, 5, 5), 6), ((4, 2, 3, 3), 8)])
def test_grey_filters(tmp_path, drawn, shape, tiles):
    plot_filters(np.random.default_rng(0).normal(size=shape), tmp_path / "f.png")
    assert len(labels(drawn["figure"])) == tiles
    picture = read(tmp_path / "f.png")
    assert (picture[..., 0] == picture[..., 1]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_saliency_is_the_largest_absolute_gradient(tmp_path, drawn, channels):
    gradient = np.zeros((channels, 12, 12))
    gradient[-1, 3, 4] = -2
    gradient[0, 6, 6] = 1
    plot_saliency(gradient, photo(channels), tmp_path / "s.png", "cat")
    shown = drawn["figure"].axes[1].images[0].get_array()
    np.testing.assert_array_equal(np.argwhere(shown), [[3, 4], [6, 6]])
    assert shown[3, 4] == 2
    assert shown[6, 6] == 1
    assert read(tmp_path / "s.png").shape == (444, 912, 3)


def test_a_gradient_of_zeros_can_be_drawn(tmp_path):
    plot_saliency(np.zeros((3, 12, 12)), photo(), tmp_path / "s.png")
    plot_grad_cam(np.zeros((2, 2)), photo(), tmp_path / "g.png")
    assert has(read(tmp_path / "g.png"), (128, 128, 128))


def test_grad_cam_colours_the_place_and_leaves_the_rest_grey(tmp_path, drawn):
    heat = np.zeros((4, 4))
    heat[0, 0] = 3
    plot_grad_cam(heat, photo(3, 20, 20), tmp_path / "g.png")
    picture = read(tmp_path / "g.png")
    box = drawn["figure"].axes[1].get_window_extent()
    top, left = round(picture.shape[0] - box.y1), round(box.x0)
    side = round(box.height)
    assert side == pytest.approx(box.width, abs=2)
    red, green, blue = picture[top + side // 16, left + side // 16].astype(int)
    assert red > green + 60
    assert red > blue + 60
    assert tuple(picture[top + 3 * side // 4, left + 3 * side // 4]) == (128, 128, 128)
