"""What is frozen stays as it is: flows, networks, codebooks, however the rest is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import data, models, nets, transforms
from pyro_genmodels.models import ELBOLoss
from pyro_genmodels.nets.layers.data_dependent_init import awaits_data
from tests import cases
from tests.cases import Case
from tests.grouped import grouped

ALL_TRANSFORMS = cases.TRANSFORMS | cases.CONDITIONAL_TRANSFORMS


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    assert before.keys() == after.keys()
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


# Flows: data in training mode


def run_on_data(case: Case) -> None:
    torch.manual_seed(0)
    context = case.context
    if context is not None and context.is_floating_point():
        context = context.float()
    transform = case.part if context is None else case.part.condition(context)
    y = torch.randn(transform.forward_shape((2, *case.event_shape)))
    transform.inv(torch.distributions.biject_to(transform.codomain)(y))


@pytest.mark.parametrize("name", ALL_TRANSFORMS)
@pytest.mark.parametrize("evaluates", [False, True], ids=["requires_grad", "eval"])
def test_flow(name: str, evaluates: bool) -> None:
    case = ALL_TRANSFORMS[name]()
    if not isinstance(case.part, nn.Module):
        pytest.skip("has no state")
    part = case.part.float().requires_grad_(False)
    if evaluates:
        part.eval()
        part.training = any(True for _ in part.children())
    before = state_of(part) if evaluates else {n: p.clone() for n, p in part.named_parameters()}
    run_on_data(case)
    assert changed(before, part.state_dict() if evaluates else dict(part.named_parameters())) == []


def test_first_data_wait_until_the_layer_is_trained() -> None:
    layer = transforms.ActNorm(3, event_dim=1).requires_grad_(False)
    y = 5 + 2 * torch.randn(100, 3)
    assert torch.equal(layer.inv(y), y)
    assert not awaits_data(layer)
    assert torch.equal(layer(y), y)  # noise, which a layer that waits for data refuses
    layer.requires_grad_(True)
    assert awaits_data(layer)
    assert float(layer.inv(y).mean(0).abs().max()) < 1e-5


@pytest.mark.parametrize("held", ["shift", "log_scale"])
def test_act_norm_sets_what_is_not_frozen(held: str) -> None:
    layer = transforms.ActNorm(3, event_dim=1)
    getattr(layer, held).requires_grad_(False)
    x = layer.inv(5 + 2 * torch.randn(1000, 3))
    assert float(getattr(layer, held).abs().max()) == 0
    if held == "shift":
        assert float((x.std(0) - 1).abs().max()) < 1e-2
    else:
        assert float(x.mean(0).abs().max()) < 1e-4


@pytest.mark.parametrize("held", ["length", "bias"])
def test_weight_norm_sets_what_is_not_frozen(held: str) -> None:
    net = cases.NETS["PixelCNNPlusPlusNet"]().part
    layers = [m for m in net.modules() if hasattr(m, "first_data")]
    for layer in layers:
        getattr(layer, held).requires_grad_(False)
    before = [getattr(layer, held).clone() for layer in layers]
    layer, x = layers[0], torch.randn(50, layers[0].direction.shape[1], 4, 4)
    result = layer(x)
    assert all(map(torch.equal, before[:1], [getattr(layer, held)]))
    mean, deviation = result.mean((0, 2, 3)), result.std((0, 2, 3))
    wanted = mean.abs() if held == "length" else (deviation - layer.scale).abs()
    assert float(wanted.max()) < 1e-2


def test_initialize_keeps_modes_and_statistics() -> None:
    flow = transforms.Chain([transforms.ActNorm(2, event_dim=1), transforms.batch_norm(2)])
    first, second = flow.children() if len(list(flow.children())) == 2 else flow.parts
    second.eval()
    before = state_of(second)
    flow.initialize(3 + torch.randn(50, 2))
    assert not awaits_data(flow)
    assert first.training
    assert not second.training
    assert changed(before, second.state_dict()) == []
    other = transforms.ActNorm(2, event_dim=1).eval()
    other.initialize(3 + torch.randn(50, 2))
    assert not other.training
    assert not awaits_data(other)


# Quantisers

QUANTIZERS: dict[str, Callable[[], nets.Quantizer]] = {
    "ema": lambda: nets.VectorQuantizer(4, 8, restart_after=0.5),
    "cosine": lambda: nets.VectorQuantizer(4, 8, distance="cosine", restart_after=0.5),
    "gradient": lambda: nets.VectorQuantizer(4, 8, learning="gradient", restart_after=0.5),
    "warm-up": lambda: nets.VectorQuantizer(4, 8, warmup_batches=2),
    "product": lambda: nets.ProductQuantizer(
        [nets.VectorQuantizer(2, 8), nets.VectorQuantizer(2, 8, learning="gradient")]
    ),
    "residual": lambda: nets.ResidualQuantizer(
        [nets.VectorQuantizer(4, 8), nets.VectorQuantizer(4, 8, restart_after=0.5)]
    ),
    "heads": lambda: nets.MultiHeadQuantizer(nets.VectorQuantizer(2, 8, restart_after=0.5), 2),
}
every_quantizer = pytest.mark.parametrize("name", QUANTIZERS)
UPDATES = (None, True, "accumulate")


def learn(quantizer: nets.Quantizer, steps: int = 4, update: Any = None) -> None:
    for _ in range(steps):
        quantizer(5 * torch.randn(1, 4) + torch.randn(16, 4), update=update)


@every_quantizer
@pytest.mark.parametrize("begun", [0, 3])
@pytest.mark.parametrize("how", ["eval", "freeze"])
@pytest.mark.parametrize("update", UPDATES, ids=str)
def test_quantizer(name: str, begun: int, how: str, update: Any) -> None:
    quantizer = QUANTIZERS[name]()
    learn(quantizer, begun)
    if how == "freeze":
        assert quantizer.freeze() is quantizer
        assert quantizer.is_frozen
        quantizer.train()
    else:
        quantizer.eval()
    before = state_of(quantizer)
    learn(quantizer, update=update)
    assert changed(before, quantizer.state_dict()) == []
    quantizer.unfreeze().train()
    learn(quantizer)
    assert not quantizer.is_frozen
    after = {k: v for k, v in quantizer.state_dict().items() if "is_frozen" not in k}
    assert changed({k: before[k] for k in after}, after) != []
    assert all(parameter.requires_grad for parameter in quantizer.parameters())


@pytest.mark.parametrize("initialization", ["kmeans", "random"])
def test_a_frozen_parameter_is_neither_placed_nor_restarted(initialization: Any) -> None:
    options = {"learning": "gradient", "restart_after": 0.1, "initialization": initialization}
    quantizer = nets.VectorQuantizer(4, 8, **options).requires_grad_(False)
    before = quantizer.codebook.clone()
    learn(quantizer)
    assert torch.equal(quantizer.codebook, before)
    assert int(quantizer.steps) == 4  # statistics go on, as those of a batch norm do
    quantizer.requires_grad_(True)
    learn(quantizer)
    assert not torch.equal(quantizer.codebook, before)


@every_quantizer
def test_a_state_dict_has_what_is_frozen(name: str) -> None:
    quantizer = QUANTIZERS[name]()
    learn(quantizer)
    unfrozen = quantizer.state_dict()
    assert not any("is_frozen" in key for key in unfrozen)  # as older files are
    other = QUANTIZERS[name]()
    other.load_state_dict(quantizer.freeze().state_dict())
    assert other.is_frozen
    assert changed(quantizer.state_dict(), other.state_dict()) == []
    before = state_of(other)
    learn(other.train())
    assert changed(before, other.state_dict()) == []
    for duplicate in (copy.deepcopy(other), QUANTIZERS[name]().freeze()):
        duplicate.load_state_dict(unfrozen)
        assert duplicate.is_frozen


# Accumulated gradients

ACCUMULATING: dict[str, Callable[..., nets.Quantizer]] = {
    "ema": lambda **o: nets.VectorQuantizer(4, 8, **o),
    "cosine": lambda **o: nets.VectorQuantizer(4, 8, distance="cosine", **o),
    "gradient": lambda **o: nets.VectorQuantizer(4, 8, learning="gradient", **o),
    "residual": lambda **o: nets.ResidualQuantizer(
        [nets.VectorQuantizer(4, 8, **o), nets.VectorQuantizer(4, 8, **o)]
    ),
    "heads": lambda **o: nets.MultiHeadQuantizer(nets.VectorQuantizer(2, 8, **o), 2),
}


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    same = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, same[name], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ACCUMULATING)
def test_accumulated_batches_are_one(name: str) -> None:
    """A bare quantiser behind a layer that trains: three batches a step, or their union.

    Without what the two ways do differently: restarts, and k-means of the first batch.
    """
    options = {"restart_after": None, "initialization": "random"}
    quantizers = [ACCUMULATING[name](**options)]
    quantizers.append(copy.deepcopy(quantizers[0]))
    encoders = [nn.Linear(4, 4)]
    encoders.append(copy.deepcopy(encoders[0]))
    for _ in range(3):
        batches = torch.randn(3, 16, 4)
        for parts, encoder, quantizer in zip((1, 3), encoders, quantizers, strict=True):
            optimizer = torch.optim.SGD([*encoder.parameters(), *quantizer.parameters()], lr=0.1)
            for part in batches.flatten(0, 1).chunk(parts):
                quantized = quantizer(encoder(part))
                (quantized.values.square().mean(-1) + quantized.loss).sum().div(48).backward()
            optimizer.step()
    assert_same_state(encoders[0], encoders[1])
    assert_same_state(quantizers[0], quantizers[1])


def vqvae(**options: Any) -> models.VQVAE:
    sizes = {"num_levels": 3, "dim": 3, "num_codes": 6, "hidden_channels": 4}
    return models.VQVAE(
        (1, 5, 6),
        **grouped(models.VQVAE, {**sizes, "residual_channels": 3, "num_blocks": 1, **options}),
    )


def images(*batch: int) -> Tensor:
    return torch.randint(3, (*batch, 1, 5, 6)).to(torch.get_default_dtype())


ENDS: dict[str, Callable[[models.VQVAE], nn.Module]] = {
    "all": lambda model: model,
    "decoder": lambda model: model.decoder,
}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("trained", ENDS)
@pytest.mark.parametrize("fused", [False, True])
def test_a_models_accumulated_batches_are_one(trained: str, fused: bool) -> None:
    quantizer = nets.VectorQuantizer(3, 6, initialization="random", restart_after=None)
    one = vqvae(quantizer=quantizer)
    if trained == "decoder":
        one.requires_grad_(False).decoder.requires_grad_(True)
    several = copy.deepcopy(one)
    for model, parts in ((one, 1), (several, 4)):
        torch.manual_seed(0)
        loss = ELBOLoss(model)
        optimizer = torch.optim.Adam(ENDS[trained](model).parameters(), fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            for batch in images(8).chunk(parts):
                (loss(batch) / parts).backward()
            optimizer.step()
        assert int(model.quantizer.steps) == 3
    assert_same_state(one, several)


def test_a_warmup_counts_optimizer_steps() -> None:
    quantizer, layer = nets.VectorQuantizer(3, 4, warmup_batches=2), nn.Linear(3, 3)
    optimizer = torch.optim.SGD(layer.parameters())
    for step in (1, 2, 3):
        for _ in range(2):
            z = layer(torch.randn(20, 3))
            quantized = quantizer(z)
            assert torch.equal(quantized.values, z) == (step <= 2)
            quantized.values.sum().backward()
        optimizer.step()
        assert int(quantizer.batches) == step
    assert int(quantizer.steps) == 1


def test_a_batch_that_overflows_is_left_out_of_its_step() -> None:
    quantizer = nets.VectorQuantizer(3, 4, initialization="random", restart_after=None)
    z = torch.randn(20, 3, requires_grad=True)
    quantizer(z)
    before = state_of(quantizer)
    bad = torch.full((2, 3), torch.inf, requires_grad=True)
    quantizer(bad)
    assert changed(before, quantizer.state_dict()) == []


def test_a_state_that_is_loaded_within_a_step_is_not_undone() -> None:
    quantizer = nets.VectorQuantizer(3, 4, initialization="random", restart_after=None)
    other = copy.deepcopy(quantizer)
    other.codebook.mul_(3.0)
    z = torch.randn(20, 3, requires_grad=True)
    quantizer(z)
    quantizer.load_state_dict(other.state_dict())
    quantizer(z)
    other(z)
    assert changed(state_of(other), quantizer.state_dict()) == []


# Lightning


def test_lightning_accumulates(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    loaders = torch.utils.data.DataLoader(images(12), batch_size=2)

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.loss = ELBOLoss(vqvae())
            self.loss.model.encoder.requires_grad_(False).eval()

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            assert not self.loss.model.encoder.training
            return self.loss(batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(p for p in self.parameters() if p.requires_grad)

    module = Module()
    lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    ).fit(module, loaders)
    assert int(module.loss.model.quantizer.steps) == 4


def small_glow() -> models.FlowModel:
    return models.glow((1, 4, 4), num_levels=3, num_steps=1, num_scales=1, width=4)


FITTED: dict[str, tuple[Callable[[], Any], str]] = {
    "quantizer": (lambda: vqvae(), "quantizer"),
    "gradient codebook": (
        lambda: vqvae(quantizer=nets.VectorQuantizer(3, 6, learning="gradient")),
        "quantizer",
    ),
    "batch norms": (lambda: cases.MODELS["NVAE"]().part, "hierarchy.encoder"),
    "spectral norms": (lambda: cases.MODELS["NVAE"]().part, "regularizer"),
    "multiplier": (
        lambda: models.BetaVAE(
            (4,),
            num_levels=3,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            objective=models.KLObjective(rate=0.5),
        ),
        "latent_cost",
    ),
}


@pytest.mark.parametrize("name", FITTED)
def test_fit_keeps_what_is_frozen(name: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from pyro_genmodels import training

    make, frozen = FITTED[name]
    model = make()
    part = model.get_submodule(frozen).requires_grad_(False).eval()
    before = state_of(part)
    shape = (40, *model.event_shape)
    source = data.InMemory(torch.randint(model.num_levels, shape), num_levels=model.num_levels)
    quick = {"progress": False, "num_samples": 0, "accelerator": "cpu", "batch_size": 8}
    training.fit(model, source, run=tmp_path, max_epochs=2, **quick)
    assert changed(before, part.state_dict()) == []
    # A run ends with all parts in eval mode: the next one knows which were held.
    training.fit(model, source, run=tmp_path / "next", max_epochs=1, **quick)
    model = copy.deepcopy(model)
    part = model.get_submodule(frozen)
    training.fit(model, source, run=tmp_path / "copied", max_epochs=1, **quick)
    assert not part.training
    assert changed(before, part.state_dict()) == []
    # A model in training mode trains as a whole again.
    model.train()
    training.fit(model, source, run=tmp_path / "again", max_epochs=1, **quick)
    if any(True for _ in part.buffers()):
        assert changed(before, part.state_dict()) != []


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("first", ["encoder", "decoder", None])
def test_a_run_is_resumed_with_the_same_parts_frozen(
    first: str | None, recorded: bool, tmp_path: Path
) -> None:
    pytest.importorskip("lightning")
    from pyro_genmodels import training

    def made(part: str | None) -> models.VAE:
        model = models.VAE(
            (1, 5, 6), num_levels=3, latent_dim=2, network=models.VAENetwork(hidden=(4, 4))
        )
        if part is not None:
            model.get_submodule(part).requires_grad_(False)
        return model

    source = data.InMemory(images(40).long(), num_levels=3)
    quick = {"progress": False, "num_samples": 0, "accelerator": "cpu", "batch_size": 8}
    options = {"run": tmp_path, "resume": True, **quick}
    training.fit(made(first), source, max_epochs=1, **options)
    path = tmp_path / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    if not recorded:  # by an earlier version
        del contents["pyro_genmodels"]["trained"]
        torch.save(contents, path)
    for other in {"encoder", None} - {first}:
        if recorded or (other is None) != (first is None):
            with pytest.raises(ValueError, match="`model` must train the parameters that it tr"):
                training.fit(made(other), source, max_epochs=2, **options)
    training.fit(made(first), source, max_epochs=2, **options)


def test_priors_that_are_held_stay_so_in_the_next_stage(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from pyro_genmodels import training

    source = data.InMemory(images(40).long(), num_levels=3)
    quick = {"progress": False, "num_samples": 0, "accelerator": "cpu", "batch_size": 8}
    training.fit(vqvae(), source, run=tmp_path, max_epochs=1, **quick)
    priors = models.learned_priors(training.load(tmp_path))
    priors[0].net.register_module("held", nn.Dropout())
    priors[0].net.held.eval()
    modes: list[tuple[bool, bool]] = []

    class Modes(lightning.Callback):  # type: ignore[misc,name-defined]
        def on_train_batch_start(self, *_: Any) -> None:
            modes.append((priors[0].net.training, priors[0].net.held.training))

    for again in (False, True):
        training.fit_prior(
            tmp_path,
            priors=priors,
            source=source,
            overwrite=again,
            max_epochs=1,
            callbacks=[Modes()],
            **quick,
        )
    assert set(modes) == {(True, False)}


def test_a_frozen_codebook_outlives_runs(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from pyro_genmodels import training

    source = data.InMemory(images(40).long(), num_levels=3)
    quick = {"progress": False, "num_samples": 0, "accelerator": "cpu", "batch_size": 8}
    first = vqvae()
    training.fit(first, source, run=tmp_path, max_epochs=1, **quick)
    first.quantizer.freeze()
    before = state_of(first.quantizer)
    training.fit(first, source, run=tmp_path / "frozen", max_epochs=1, **quick)
    assert changed(before, first.quantizer.state_dict()) == []
    loaded = training.load(tmp_path / "frozen")
    assert loaded.quantizer.is_frozen
    assert changed(before, loaded.quantizer.state_dict()) == []
    training.fit(loaded, source, run=tmp_path / "frozen", resume=True, max_epochs=2, **quick)
    assert changed(before, loaded.quantizer.state_dict()) == []
    # One of before it was frozen loads too, and is not what unfreezes.
    again = vqvae()
    again.quantizer.freeze()
    assert training.load(tmp_path, model=again).quantizer.is_frozen
