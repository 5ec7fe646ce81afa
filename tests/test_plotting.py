"""Pictures: right pixels, any number of channels and levels, files written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from pyro_genmodels import models, plotting
from pyro_genmodels.data import Column


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


def tile(path: Path, like: torch.Tensor, row: int, column: int, strip: int = 0) -> torch.Tensor:
    """Return the pixels that stand for one image on a titled sheet, of which none is blended."""
    picture = (255 * torch.from_numpy(imread(path))[..., :3]).round().long()
    grey = (picture[:, 0] == 128).all(-1).nonzero()
    top, (height, width) = int(grey[0]), like.shape[-2:]
    factor = -(-48 // max(height, width)) if max(height, width) < 48 else 1
    y = top + row * (height * factor + 4 + strip) + 2
    x = column * (width * factor + 4) + 2
    return picture[y : y + height * factor, x : x + width * factor].view(
        height, factor, width, factor, 3
    )


@pytest.mark.parametrize("classes", [None, ["a", "b", "c"] * 2, list("abbaca")])
@pytest.mark.parametrize("size", [8, 28, 50])
def test_a_sheet_has_the_pixels_of_the_data(
    size: int, classes: list[str] | None, tmp_path: Path
) -> None:
    """Whatever stands around them: a title, labels below columns or below each image."""
    x = torch.randint(256, (6, 3, size, size))
    path = tmp_path / "x.png"
    plotting.save_samples(x, 256, path, title="VAE on $x_1$, 日本", columns=3, classes=classes)
    strip = 16 if classes == list("abbaca") else 0
    for i in range(6):
        shown = tile(path, x[i], i // 3, i % 3, strip)
        assert (shown == x[i].permute(1, 2, 0)[:, None, :, None]).all(), i


def test_labels_and_titles_make_room(tmp_path: Path) -> None:
    def size(**options: object) -> tuple[int, int]:
        plotting.save_samples(torch.zeros(4, 1, 8, 8), 2, tmp_path / "x.png", **options)  # type: ignore[arg-type]
        height, width, _ = imread(tmp_path / "x.png").shape
        return height, width

    height, width = size(columns=2)
    titled = size(columns=2, title="VAE on Digits, epoch 12, temperature 0.9")
    assert titled[0] > height
    assert titled[1] > width, "a title is not cut off"
    below = size(columns=2, classes=["cat", "dog"] * 2)
    assert 0 < below[0] - height < 30
    upright = size(columns=2, classes=["a rather long class name", "dog"] * 2)
    assert upright[0] > below[0] + 50
    each = size(columns=2, classes=["cat", "dog", "dog", "a rather long class name"])
    assert (each[0] - height, each[1]) == (32, width)
    with pytest.raises(ValueError, match="`classes` must be 4, one for each image; got 3"):
        size(classes=["cat"] * 3)


def test_a_sheet_leaves_out_what_is_too_much(tmp_path: Path) -> None:
    for images in (torch.rand(900, 3, 128, 128), torch.rand(2, 600, 16, 16)):
        plotting.save_samples(images, None, tmp_path / "x.png")
        assert imread(tmp_path / "x.png")[..., 0].size < 9e6


def test_missing_pixels_are_grey() -> None:
    x = torch.tensor([0.0, 3.0, float("nan"), 1.0]).view(1, 1, 2, 2)
    for num_levels in (4, None):
        assert plotting.to_pixels(x, num_levels)[0, 0, 1, 0] == 0.5
        assert not plotting.to_pixels(x, num_levels).isnan().any()


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    saved: list[Figure] = []
    original = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (saved.append(self), original(self, *a, **k))[1]
    )
    return saved


def texts(figure: Figure) -> str:
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        found += [label.get_text() for label in axes.get_xticklabels()]
        legend = axes.get_legend()
        found += [] if legend is None else [text.get_text() for text in legend.get_texts()]
    return "\n".join(filter(None, found))


def test_vectors_of_more_than_two_columns_are_a_corner_plot(
    figures: list[Figure], tmp_path: Path
) -> None:
    x, data = torch.randn(40, 9), torch.randn(40, 9)
    data[::3, 0] = float("nan")
    plotting.save_samples(x, None, tmp_path / "x.png", data=data, title="VAE on Table")
    (figure,) = figures
    drawn = [axes for axes in figure.axes if axes.axison]
    assert len(drawn) == 21  # six columns: a diagonal and what is below
    shown = texts(figure).split("\n")
    assert {"VAE on Table", "x[5]", "data", "samples"} <= set(shown)
    assert "the first 6 of 9 columns" in texts(figure)


def test_columns_have_their_names_and_their_categories(
    figures: list[Figure], tmp_path: Path
) -> None:
    kinds = [
        Column("height, in $"),
        Column("colour", "categorical", ("red", "green")),
        Column("visits", "count"),
    ]
    x = torch.stack([torch.randn(30), torch.arange(30) % 2, torch.arange(30) % 5], 1)
    plotting.save_samples(x, None, tmp_path / "x.png", data=x, features=kinds)
    shown = texts(figures[0]).split("\n")
    assert {"height, in $", "colour", "visits", "red", "green"} <= set(shown)
    bars = figures[0].axes[4].patches  # the middle of the diagonal
    assert [bar.get_height() for bar in bars] == [0.5, 0.5, 0.5, 0.5]


def test_reconstructions_of_columns_have_axes_of_their_own(
    figures: list[Figure], tmp_path: Path
) -> None:
    kinds = [Column("mass"), Column("sex", "categorical", ("female", "male")), Column("eggs")]
    x = torch.stack([1e4 + torch.randn(30), torch.arange(30) % 2, torch.randn(30)], 1)
    x[0, 2] = float("nan")
    plotting.save_reconstructions(x, x.nan_to_num(0.0), None, tmp_path / "r.png", features=kinds)
    mass, sex, eggs = figures[0].axes
    assert [axes.get_title() for axes in figures[0].axes] == ["mass", "sex", "eggs"]
    assert mass.get_xlim()[0] > 9e3
    assert max(eggs.get_xlim()) < 10
    assert [label.get_text() for label in sex.get_yticklabels()] == ["female", "male"]
    wide = torch.rand(5, 9)
    plotting.save_reconstructions(
        wide, wide, None, tmp_path / "w.png", features=[Column(f"x{i}") for i in range(9)]
    )
    assert len(figures[1].axes) == 6
    assert figures[1].get_suptitle() == "the first 6 of 9 columns"


@pytest.mark.parametrize(("size", "num_levels"), [(3, 2), (500, 256), (100, None)])
def test_sequences_are_lines_beside_data(
    size: int, num_levels: int | None, figures: list[Figure], tmp_path: Path
) -> None:
    x = torch.rand(20, size) if num_levels is None else torch.randint(num_levels, (20, size))
    plotting.save_samples(x, num_levels, tmp_path / "x.png", data=x.flip(0))
    axes = figures[0].axes
    assert len(axes) == 16
    assert (torch.as_tensor(axes[0].lines[0].get_ydata()) == x[-1]).all()
    assert (torch.as_tensor(axes[1].lines[0].get_ydata()) == x[0]).all()
    plotting.save_reconstructions(x, x, num_levels, tmp_path / "r.png")
    assert "original and reconstruction" in texts(figures[1])


def test_what_lies_far_from_the_data_is_counted(figures: list[Figure], tmp_path: Path) -> None:
    x, data = torch.randn(50, 2), torch.randn(50, 2)
    x[:3] = torch.tensor([1e6, float("inf")])
    plotting.save_samples(x, None, tmp_path / "x.png", data=data)
    assert "3 of 50 samples lie outside" in texts(figures[0])
    assert max(abs(end) for end in figures[0].axes[1].get_xlim()) < 20


def test_the_best_epoch_is_marked(figures: list[Figure], tmp_path: Path) -> None:
    losses = [5.0, float("nan"), 3.0, 4.0]
    for unit in ("nats", "bits_per_dim"):
        rows = [
            {"epoch": i, f"training_{unit}": loss, f"validation_{unit}": loss}
            for i, loss in enumerate(losses, 1)
        ]
        plotting.save_curves(rows, tmp_path / "c.png", title="VAE on Digits")
        shown, axes = texts(figures[-1]), figures[-1].axes[0]
        assert f"best: 3 {unit.replace('_per_', '/')}, epoch 3" in shown
        assert "VAE on Digits" in shown
        assert list(axes.lines[2].get_xdata()) == [3, 3]


def test_chains_of_images_go_from_left_to_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    save = plotting.pictures.save_sheet
    monkeypatch.setattr(
        plotting.pictures, "save_sheet", lambda *a, **k: [seen.update(k, sheet=a[0]), save(*a, **k)]
    )
    states = torch.randn(4, 3, 1, 5, 5)
    plotting.save_trajectory(states, torch.tensor([5.0, 1.0, -2.0, -8.0]), tmp_path / "t.png")
    assert seen["columns"] == 4
    assert torch.equal(seen["sheet"][4 * 2 + 1], states[1, 2])
    assert seen["labels"] == ["-5.0", "-1.0", "2.0", "8.0"] * 3
    assert (tmp_path / "t.png").stat().st_size > 0


def test_chains_of_vectors_are_points(figures: list[Figure], tmp_path: Path) -> None:
    states = torch.randn(3, 50, 4)
    plotting.save_trajectory(states, torch.tensor([5.0, 0.0, -8.0]), tmp_path / "t.png", title="T")
    assert [axes.get_title() for axes in figures[0].axes] == [
        f"log SNR {level}" for level in ("-5.0", "-0.0", "8.0")
    ]
    drawn = torch.tensor(figures[0].axes[1].collections[0].get_offsets().tolist())
    torch.testing.assert_close(drawn, states[1, :, :2])


def test_the_area_of_rates_is_their_sum(figures: list[Figure], tmp_path: Path) -> None:
    rates = torch.tensor([[1.0, 4.0, 2.0, 0.5], [3.0, 0.0, 4.0, 1.5]])
    levels = torch.tensor([-4.0, -3.0, -1.0, 0.0])
    plotting.save_rates(rates, levels, tmp_path / "r.png", title="T")
    values, edges, _ = figures[0].axes[0].patches[0].get_data()
    assert edges.tolist() == [0, 1, 3, 4]
    assert values.tolist() == [3, 1, 2]
    assert "steps: 7 nats, last state: 1 nats" in texts(figures[0])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("save_trajectory", ((3, 2, 1, 4, 4), (2,)), r"`levels` must have shape \(3,\)"),
        ("save_trajectory", ((3, 2, 1), (3,)), "`states` must be images or vectors"),
        ("save_trajectory", ((0, 2, 2), (0,)), "`states` must hold at least one state"),
        ("save_rates", ((2, 3), (4,)), "`rates` must hold 4 for each example"),
        ("save_rates", ((2, 1), (1,)), "`levels` must be those of one step or more"),
    ],
)
def test_chains_that_do_not_fit_are_named(
    name: str, arguments: tuple[tuple[int, ...], ...], message: str, tmp_path: Path
) -> None:
    given = [torch.zeros(shape) for shape in arguments]
    with pytest.raises(ValueError, match=message):
        getattr(plotting, name)(*given, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
