"""Builders: settings of the diffusion model as published, each one call."""

from __future__ import annotations

from typing import Any, Literal

from pyro_genmodels._checks import check_choice, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.diffusion.arguments import Denoising, DiffusionObjective, LevelEncoding
from pyro_genmodels.models.diffusion.diffusion_model import DiffusionModel
from pyro_genmodels.models.diffusion.estimator import MOST_LEVELS
from pyro_genmodels.nets import Geometric

# What each builder settles itself.
_SETTLED = ("schedule", "denoising", "objective", "encoding")


@integers_checked
@takes_arguments_of(DiffusionModel, without=_SETTLED)
def ddpm(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    variance: Literal["posterior", "forward"] = "posterior",
    context_dropout: float = 0.0,
    **options: Any,
) -> DiffusionModel:
    """Make a denoising diffusion probabilistic model, which predicts noise.

    It is trained by the squared error of the noise, all steps alike, and that is not its bound on
    the likelihood. The bound is reported beside it; :func:`vdm` trains the bound.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        num_steps: Number T of steps; 999 steps have the noise levels of the paper's 1000, whose
            first step is the decoder here. That decoder reads off each element alone.
        variance: Of a reverse step: the forward chain's ``"posterior"``, which has the tighter
            bound with few steps, or the ``"forward"`` step's, as in the paper's best samples.
        context_dropout: Probability of training an example without its context, which guidance
            needs.
        options: Others.

    Returns:
        The model.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Ho et al. (2020), Denoising diffusion probabilistic models.
        https://arxiv.org/abs/2006.11239

    Example:
        >>> from pyro_genmodels.models import DenoisingNetwork
        >>> model = ddpm((1, 8, 8), num_levels=17, network=DenoisingNetwork(channels=8))
        >>> model.beside_elbo()
        ['simple']
    """
    check_choice("variance", variance, ("posterior", "forward"))
    return DiffusionModel(
        event_shape,
        num_levels=num_levels,
        schedule="linear_beta",
        denoising=Denoising("noise", variance=variance, fourier_features=0),
        objective=DiffusionObjective("simple", context_dropout=context_dropout),
        **options,
    )


@integers_checked
@takes_arguments_of(DiffusionModel, without=_SETTLED)
def improved_ddpm(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    bound_weight: float = 1e-3,
    context_dropout: float = 0.0,
    **options: Any,
) -> DiffusionModel:
    """Make an improved DDPM: cosine schedule, and variances learned by a little of the bound.

    As in the paper, the variances alone learn from the bound, the mean from the squared error of
    the noise.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        num_steps: Number T of steps; 4000 in the paper. The schedule is cut at finite noise levels
            in the place of the paper's largest step.
        bound_weight: Weight of the bound beside the squared error, both as sums over all steps.
        context_dropout: Probability of training an example without its context, which guidance
            needs.
        options: Others.

    Returns:
        The model.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Nichol and Dhariwal (2021), Improved denoising diffusion probabilistic models.
        https://arxiv.org/abs/2102.09672

    Example:
        >>> from pyro_genmodels.models import DenoisingNetwork
        >>> model = improved_ddpm((1, 8, 8), num_levels=17, network=DenoisingNetwork(channels=8))
        >>> model.variance, model.beside_elbo()
        ('learned', ['hybrid'])
    """
    return DiffusionModel(
        event_shape,
        num_levels=num_levels,
        schedule="cosine",
        denoising=Denoising("noise", variance="learned", fourier_features=0),
        objective=DiffusionObjective(
            "hybrid", bound_weight=bound_weight, context_dropout=context_dropout
        ),
        **options,
    )


@integers_checked
@takes_arguments_of(DiffusionModel, without=_SETTLED)
def vdm(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    continuous: bool = False,
    context_dropout: float = 0.0,
    **options: Any,
) -> DiffusionModel:
    """Make a variational diffusion model, trained by its bound, whose noise levels are learned.

    Of data with up to 64 levels the network predicts logits of the levels, which is not in the
    paper and has the better bound; of others the noise, with Fourier features of the noised data.
    The ends of the schedule are learned; the way between them is straight, and noise levels that
    matter more are drawn more often, in the place of the paper's monotone network.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        continuous: Train the limit of infinitely many steps, as the paper's best results do. The
            model that is scored and drawn from still has ``num_steps``.
        context_dropout: Probability of training an example without its context, which guidance
            needs.
        options: Others.

    Returns:
        The model.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Kingma et al. (2021), Variational diffusion models. https://arxiv.org/abs/2107.00630

    Example:
        >>> from pyro_genmodels.models import DenoisingNetwork
        >>> model = vdm((1, 8, 8), num_levels=17, network=DenoisingNetwork(channels=8))
        >>> model.estimator.prediction, model.beside_elbo()
        ('levels', [])
    """
    few = num_levels is not None and num_levels <= MOST_LEVELS
    return DiffusionModel(
        event_shape,
        num_levels=num_levels,
        schedule="linear_log_snr",
        denoising="levels" if few else "noise",
        objective=DiffusionObjective(continuous=continuous, context_dropout=context_dropout),
        **options,
    )


@integers_checked
@takes_arguments_of(DiffusionModel, without=_SETTLED)
def ncsn(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    smallest: float = 0.02,
    largest: float = 50.0,
    context_dropout: float = 0.0,
    **options: Any,
) -> DiffusionModel:
    r"""Make a noise-conditional score network, as a diffusion model whose bound can be stated.

    Its noise scales form a geometric progression. The network predicts the noise, and so minus
    :math:`\sigma` times the score of the noised data. With these scales the paper's weights
    :math:`\sigma^2` are the bound's, up to one constant factor.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data, which the chain sees between -1 and 1; ``None`` for
            continuous data, which it sees standardised once the model is trained.
        num_steps: Number T of steps between the noise scales; the paper has 10 scales, and draws
            with many Langevin steps at each.
        smallest: Scale of the noise at the start of the chain. It should be a few times below the
            distance between two levels.
        largest: Scale of the noise at its end; several times the largest distance between two data
            points.
        context_dropout: Probability of training an example without its context, which guidance
            needs.
        options: Others.

    Returns:
        The model.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Song and Ermon (2019), Generative modeling by estimating gradients of the data
        distribution. https://arxiv.org/abs/1907.05600. Song and Ermon (2020), Improved techniques
        for training score-based generative models. https://arxiv.org/abs/2006.09011

    Example:
        >>> from pyro_genmodels.models import DenoisingNetwork
        >>> model = ncsn((1, 8, 8), num_levels=17, network=DenoisingNetwork(channels=8))
        >>> [round(float(level.div(2).exp()), 2) for level in model.levels(2)]
        [0.02, 1.0, 50.0]
    """
    return DiffusionModel(
        event_shape,
        num_levels=num_levels,
        schedule=Geometric(smallest, largest),
        denoising=Denoising("noise", fourier_features=0),
        objective=DiffusionObjective("simple", context_dropout=context_dropout),
        **options,
    )


@integers_checked
@takes_arguments_of(DiffusionModel, without=_SETTLED)
def bit_diffusion(
    event_shape: EventShape,
    *,
    num_levels: int,
    self_conditioning: bool = True,
    context_dropout: float = 0.0,
    **options: Any,
) -> DiffusionModel:
    """Make a diffusion model of the bits of discrete data, which sees its own first estimate.

    It is trained by its bound, where the paper takes the squared error of the bits. The first
    estimate is made from the same noised data in a second evaluation, so that sampling and scoring
    are of one model; the paper carries it along from the step before, with half the evaluations.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Number of levels, or of symbols, of the data.
        self_conditioning: Let the network see its own first estimate.
        context_dropout: Probability of training an example without its context, which guidance
            needs.
        options: Others.

    Returns:
        The model.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Chen et al. (2023), Analog bits: generating discrete data using diffusion models with
        self-conditioning. https://arxiv.org/abs/2208.04202

    Example:
        >>> from pyro_genmodels.models import DenoisingNetwork
        >>> model = bit_diffusion((1, 8, 8), num_levels=17, network=DenoisingNetwork(channels=8))
        >>> model.data.shape  # 17 levels have five bits
        torch.Size([5, 8, 8])
    """
    return DiffusionModel(
        event_shape,
        num_levels=num_levels,
        schedule="linear_log_snr",
        denoising="data",
        objective=DiffusionObjective(context_dropout=context_dropout),
        encoding=LevelEncoding("bits", self_conditioning=self_conditioning),
        **options,
    )
