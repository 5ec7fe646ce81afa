"""Pyro's compiled estimators: right at every batch size, or one sentence says what to use."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from torch import Tensor, nn

from pyro_genmodels import models
from pyro_genmodels.distributions.autoregressive import base as distributions_base
from pyro_genmodels.models.base import generative_model
from tests import cases
from tests.extras import CORE_ONLY
from tests.test_laws import batch_for

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.one_each]
MODELS = cases.MODELS | {f"{name}/features": make for name, make in cases.FEATURE_MODELS.items()}
ESTIMATORS = {
    JitTrace_ELBO: Trace_ELBO,
    JitTraceMeanField_ELBO: TraceMeanField_ELBO,
    JitTraceGraph_ELBO: TraceGraph_ELBO,
    JitTraceEnum_ELBO: TraceEnum_ELBO,
}
REFUSES = "^`elbo` must not be compiled, as JitTrace_ELBO is, for this model: .* use Trace_ELBO"


def is_refused(model: nn.Module) -> bool:
    """Whether a trace would fix the model's batch size."""
    kinds = (models.AutoregressiveModel, models.VectorQuantizedModel, models.HiddenMarkovModel)
    kinds = (*kinds, models.MixtureModel)
    likelihoods = [p for p in model.modules() if isinstance(p, models.AutoregressiveLikelihood)]
    return isinstance(model, kinds) or bool(likelihoods)


def compare(name: str, compiled: Any) -> None:
    case = MODELS[name]()
    model = case.part.eval()
    compiled_elbo = compiled(max_plate_nesting=1, ignore_jit_warnings=True)
    plain = ESTIMATORS[compiled](max_plate_nesting=1)
    optimizer = pyro.optim.Adam({"lr": 0.0})  # type: ignore[attr-defined]
    svi = SVI(model.model, model.guide, optimizer, compiled_elbo)

    def batch(size: int) -> list[Tensor]:
        x, context = batch_for(case, size)
        floating = context is not None and context.is_floating_point()
        return [x] if context is None else [x, context.float() if floating else context]

    if is_refused(model):
        with pytest.raises(ValueError, match=REFUSES):
            svi.step(*batch(4))
        return
    if not CORE_ONLY:
        pytest.skip("in a trace sizes are tensors, which the checks of shapes refuse")
    svi.step(*batch(4))  # compiles, with draws of its own
    for size in (4, 3, 6):
        pyro.set_rng_seed(1)
        loss = svi.step(*batch(size))
        pyro.set_rng_seed(1)
        expected = plain.loss(model.model, model.guide, *batch(size))
        if compiled is JitTraceMeanField_ELBO:  # it draws in another order
            losses = [plain.loss(model.model, model.guide, *batch(size)) for _ in range(30)]
            runs = torch.tensor(losses)
            assert abs(loss - float(runs.mean())) < 6 * float(runs.std())
        else:
            assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    compare(name, JitTrace_ELBO)


@pytest.mark.parametrize("estimator", list(ESTIMATORS)[1:])
@pytest.mark.parametrize(
    "name", ["AutoregressiveModel/plus-plus", "FlowModel", "NVAE", "VAE/binary-labels", "VQVAE"]
)
def test_other_estimators(name: str, estimator: Any) -> None:
    compare(name, estimator)


@pytest.mark.parametrize("name", ["BetaVAE/capacity", "BetaVAE/rate"])
def test_a_weight_that_training_moves(name: str) -> None:
    """A trace leaves its steps out, and no loss would show it."""
    case = MODELS[name]()
    elbo = JitTrace_ELBO(max_plate_nesting=1, ignore_jit_warnings=True)
    optimizer = pyro.optim.Adam({"lr": 0.0})  # type: ignore[attr-defined]
    svi = SVI(case.part.train().model, case.part.guide, optimizer, elbo)
    x, context = batch_for(case, 4)
    with pytest.raises(ValueError, match=REFUSES):
        svi.step(*([x] if context is None else [x, context]))


@pytest.mark.parametrize("name", ["AutoregressiveModel/gated", "VQVAE", "VAE/autoregressive"])
def test_without_the_refusal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: nothing would say so."""
    compare(name, JitTrace_ELBO)
    pyro.clear_param_store()
    for module in (generative_model, distributions_base):
        monkeypatch.setattr(module, "check_not_traced", lambda: None)
    with pytest.raises((pytest.fail.Exception, Exception), match=r"(?s)."):
        compare(name, JitTrace_ELBO)


@pytest.mark.skipif(not CORE_ONLY, reason="in a trace sizes are tensors")
def test_a_distribution_in_a_program_of_its_own() -> None:
    law = cases.DISTRIBUTIONS["GatedPixelCNN"]().part

    def program(x: Tensor) -> None:
        with pyro.plate("data", 4):
            pyro.sample("x", law, obs=x)

    elbo = JitTrace_ELBO(max_plate_nesting=1, ignore_jit_warnings=True)
    with pytest.raises(ValueError, match=REFUSES.removeprefix("^")):
        elbo.loss_and_surrogate_loss(program, lambda x: None, torch.zeros(4, *law.event_shape))
