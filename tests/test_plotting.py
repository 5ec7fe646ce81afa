"""Pictures: right pixels, any number of channels and levels, files written whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from pyro_genmodels import models, plotting


def test_a_grid_places_each_image() -> None:
    images = torch.arange(6).reshape(6, 1, 1, 1).expand(6, 1, 48, 48)
    grid = plotting.image_grid(images, 6, columns=3)
    assert grid.shape == (2 * 50, 3 * 50, 3)
    centres = grid[25::50, 25::50, 0]
    assert torch.allclose(centres.flatten(), torch.arange(6) / 5)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("num_levels", [None, 2, 17, 256])
def test_any_channels_and_levels_are_drawn(
    channels: int, num_levels: int | None, tmp_path: Path
) -> None:
    x = torch.rand(7, channels, 6, 9)
    x = x if num_levels is None else (x * num_levels).floor()
    plotting.save_samples(x, num_levels, tmp_path / "x.png")
    picture = imread(tmp_path / "x.png")
    assert picture.std() > 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_colours_keep_their_channels() -> None:
    red = torch.tensor([255.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 48, 48)
    assert plotting.image_grid(red, 256)[25, 25].tolist() == [1, 0, 0]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_vectors_are_drawn(size: int, tmp_path: Path) -> None:
    plotting.save_samples(torch.randn(50, size), None, tmp_path / "x.png")
    assert imread(tmp_path / "x.png").std() > 0.01


def test_reconstructions_stand_beside_their_originals(tmp_path: Path) -> None:
    x = torch.zeros(4, 1, 48, 48)
    plotting.save_reconstructions(x, x + 1, 2, tmp_path / "r.png")
    picture = torch.as_tensor(imread(tmp_path / "r.png")[..., 0])
    assert picture[25, 25::50].tolist() == [0, 1] * (picture.shape[1] // 100)
    plotting.save_reconstructions(torch.randn(5, 2), torch.randn(5, 2), None, tmp_path / "v.png")


def test_curves_of_any_length_are_drawn(tmp_path: Path) -> None:
    rows = [
        {"epoch": e, "training_nats": 9.0 / e, "validation_nats": 10.0 / e} for e in range(1, 40)
    ]
    plotting.save_curves([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    for history in (rows[:1], rows, [{**rows[0], "training_nats": float("nan")}]):
        plotting.save_curves(history, tmp_path / "c.png")
        assert imread(tmp_path / "c.png").std() > 0.01


def test_no_images_are_named() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        plotting.image_grid(torch.zeros(0, 1, 2, 2), 2)


def test_traversals_move_one_unit_a_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = models.VAE((1, 48, 48), num_levels=2, latent_dim=2, network=models.VAENetwork(hidden=()))
    layer = vae.decoder.mlp.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[:, 1] = 4.0  # unit 0 does nothing, unit 1 brightens everything
    plotting.save_traversals(vae, tmp_path / "z.png", num_steps=3)
    picture = torch.from_numpy(imread(tmp_path / "z.png"))[25::50, 25::50, 0]
    assert picture.shape == (2, 3)
    assert (picture[0] - 0.5).abs().max() < 0.02
    assert picture[1, 0] < 0.02 < 0.98 < picture[1, 2]
    plotting.save_traversals(vae, tmp_path / "z.png", units=[1], z=torch.ones(2), num_steps=5)
    assert imread(tmp_path / "z.png").shape[:2] == (50, 250)
    with pytest.raises(ValueError, match="`units` must be one unit or more"):
        plotting.save_traversals(vae, tmp_path / "z.png", units=[])
    nvae = models.NVAE((1, 8, 8), num_levels=2)
    with pytest.raises(ValueError, match=r"`model` must have latent vectors.*NVAE"):
        plotting.save_traversals(nvae, tmp_path / "z.png")


def test_traversals_are_drawn_without_dropout(tmp_path: Path) -> None:
    vae = models.VAE(
        (1, 48, 48), num_levels=2, latent_dim=2, network=models.VAENetwork(dropout=0.5)
    )
    for name in ("a.png", "b.png"):
        plotting.save_traversals(vae, tmp_path / name)
    assert (imread(tmp_path / "a.png") == imread(tmp_path / "b.png")).all()
    assert vae.training
