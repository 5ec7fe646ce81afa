"""Arguments of diffusion models that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels.distributions import VARIANCES, VarianceName
from pyro_genmodels.nets import Denoiser, DenseDenoiser, SequenceUNet, UNet

PREDICTIONS = ("auto", "noise", "data", "velocity", "levels")
OBJECTIVES = ("bound", "simple", "hybrid", "flow_matching")
ENCODINGS = ("levels", "bits", "learned")


@dataclass(frozen=True)
class Denoising(ArgumentGroup):
    r"""What a diffusion model's network predicts, and the variance of a reverse step.

    Args:
        prediction: ``"noise"`` :math:`\epsilon`; clean ``"data"``; ``"velocity"``
            :math:`\alpha \epsilon - \sigma x`, which stays well scaled at all noise levels; or, of
            discrete data, ``"levels"``: logits of every level, to which what each element itself
            tells of its level is added in closed form. By default levels up to 64 of them,
            else velocity.
        variance: Of a reverse step: the forward chain's ``"posterior"``, the ``"forward"``
            step's, or ``"learned"`` between both for each element.
        fourier_features: Octaves of sines and cosines of the noised data that the network sees
            beside them, from a period of two levels upwards: without them, noise or velocity
            cannot tell levels apart. By default two octaves above 64 levels, else none.

    Raises:
        ValueError: If a choice is unknown, or a number is negative.

    References:
        Ho et al. (2020), DDPM. Salimans and Ho (2022), Progressive distillation (velocity).
        Nichol and Dhariwal (2021), Improved DDPM (learned variance). Kingma et al. (2021),
        Variational diffusion models (Fourier features).

    Example:
        >>> Denoising("noise", variance="learned").fourier_features is None
        True
    """

    prediction: Literal["auto", "noise", "data", "velocity", "levels"] = "auto"
    _: KW_ONLY
    variance: VarianceName = "posterior"
    fourier_features: int | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a choice is unknown or a number is negative."""
        super().__post_init__()
        check_choice("prediction", self.prediction, PREDICTIONS)
        check_choice("variance", self.variance, VARIANCES)
        number = self.fourier_features
        check(number is None or number >= 0, "fourier_features", "not be negative", number)


@dataclass(frozen=True)
class DiffusionObjective(ArgumentGroup):
    r"""How a diffusion model is trained: by its bound, or by other weights of the noise levels.

    Args:
        kind: The ``"bound"`` itself; ``"simple"``, the squared error
            :math:`|\epsilon - \hat\epsilon|^2` of the noise, in the mean of all steps;
            ``"hybrid"``, that plus ``bound_weight`` times the bound, which trains the variance
            alone; or ``"flow_matching"``, the squared error of the velocity of a straight path
            between noise and data, in the mean of all times. All but the first train no likelihood;
            the bound is reported beside them.
        continuous: Train the limit of infinitely many steps in the place of the model's own. Then
            no variance can be learned.
        context_dropout: Probability of training an example without its context. The network then
            also learns the data without any, which guidance needs.
        bound_weight: Weight of the bound in the hybrid objective.
        importance_sampling: Draw noise levels that contribute more, more often. The objective and
            the mean of its gradient stay what they are; its variance falls.

    Raises:
        ValueError: If a choice is unknown or a number impossible.

    References:
        Ho et al. (2020), eq. 14. Nichol and Dhariwal (2021), section 3. Lipman et al. (2023), Flow
        matching for generative modeling. Ho and Salimans (2021), Classifier-free diffusion
        guidance.

    Example:
        >>> DiffusionObjective("simple", context_dropout=0.1).names
        ['simple', 'context_dropout 0.1']
    """

    kind: Literal["bound", "simple", "hybrid", "flow_matching"] = "bound"
    _: KW_ONLY
    continuous: bool = False
    context_dropout: float = 0.0
    bound_weight: float = 1e-3
    importance_sampling: bool = True

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a choice is unknown or a number impossible."""
        super().__post_init__()
        check_choice("kind", self.kind, OBJECTIVES)
        share = self.context_dropout
        check(0 <= share < 1, "context_dropout", "lie from 0 to below 1", share)
        check_positive(bound_weight=self.bound_weight)

    @property
    def names(self) -> list[str]:
        """What the objective has that the bound has not."""
        names: list[str] = [] if self.kind == "bound" else [self.kind]
        names += ["continuous"] if self.continuous else []
        share = self.context_dropout
        return names + ([f"context_dropout {share:g}"] if share else [])


@dataclass(frozen=True)
class LevelEncoding(ArgumentGroup):
    """What a diffusion model's chain sees of discrete data.

    Args:
        kind: Each level as one value between -1 and 1; as its ``"bits"``, each -1 or 1; or as a
            ``"learned"`` vector.
        size: Length of learned vectors.
        self_conditioning: Let the network see its own first estimate at the same noise level, at
            the price of a second evaluation.

    Raises:
        ValueError: If the kind is unknown or the size not positive.

    References:
        Chen et al. (2023), Analog bits: generating discrete data using diffusion models with
        self-conditioning. https://arxiv.org/abs/2208.04202

    Example:
        >>> LevelEncoding("bits").self_conditioning
        False
    """

    kind: Literal["levels", "bits", "learned"] = "levels"
    _: KW_ONLY
    size: int = 4
    self_conditioning: bool = False

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the kind is unknown or the size not positive."""
        super().__post_init__()
        check_choice("encoding", self.kind, ENCODINGS)
        check_positive(size=self.size)


@dataclass(frozen=True)
class DenoisingNetwork(ArgumentGroup):
    """Kind and sizes of a diffusion model's network.

    Args:
        kind: ``"unet"`` of images; ``"dense"`` of vectors, or ``"sequence"``, a U-Net along vectors
            whose elements follow each other, as text and codes do. By default the first that fits.
        channels: Channels of a U-Net at its full size.
        multipliers: Its channels at each size, in multiples of ``channels``; each size is half the
            one before. One alone keeps the full size.
        num_blocks: Its residual blocks per size.
        attention: Factors of downsampling at which it has self-attention.
        num_heads: Heads of the self-attention.
        scale_shift: Let noise level and context scale the features, not only shift them.
        hidden: Widths of a dense network's residual blocks.
        dropout: Probability of dropping a unit in training.
        checkpointing: Keep no activations; the backward pass computes them again.
        network: Own network in the place of all that: see :class:`~pyro_genmodels.nets.Denoiser`.

    Raises:
        ValueError: If there is no such kind.

    Example:
        >>> from pyro_genmodels.models import DiffusionModel
        >>> network = DenoisingNetwork(channels=8, multipliers=(1, 2))
        >>> DiffusionModel((1, 8, 8), num_levels=17, network=network).num_steps
        256
    """

    kind: Literal["auto", "unet", "sequence", "dense"] = "auto"
    _: KW_ONLY
    channels: int = 24
    multipliers: Sequence[int] = (1, 2)
    num_blocks: int = 1
    attention: Sequence[int] = (2,)
    num_heads: int = 1
    scale_shift: bool = False
    hidden: Sequence[int] = (256, 256, 256)
    dropout: float = 0.1
    checkpointing: bool = False
    network: Denoiser | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if there is no such kind of network."""
        super().__post_init__()
        check_choice("network", self.kind, ("auto", "unet", "sequence", "dense"))

    def make(self, shape: Sequence[int], inputs: int, outputs: int, **context: Any) -> Denoiser:
        """Return a network.

        Args:
            shape: Sizes of one data point.
            inputs: Channels, or features, of the network's input.
            outputs: Those of its output.
            context: What it is conditioned on.

        Raises:
            ValueError: If the network does not fit the data.
        """
        if self.network is not None:
            _check_fits(self.network, shape, inputs, outputs, context)
            return self.network
        fitting = {1: ("dense", "sequence"), 3: ("unet",)}[len(shape)]
        kind = fitting[0] if self.kind == "auto" else self.kind
        rule = f"fit data of shape {tuple(shape)}, as {' or '.join(map(repr, fitting))} does"
        check(kind in fitting, "network", rule, repr(kind))
        shared: dict[str, Any] = {
            "dropout": self.dropout,
            "checkpointing": self.checkpointing,
            **context,
        }
        shared["scale_shift"] = self.scale_shift
        if kind == "dense":
            return DenseDenoiser(inputs, outputs, hidden=self.hidden, **shared)
        sizes: dict[str, Any] = {"channels": self.channels, "multipliers": self.multipliers}
        blocks: dict[str, Any] = {"num_blocks": self.num_blocks, "num_heads": self.num_heads}
        # A network that never halves has no smaller size, where this group attends by default.
        halves, is_default = len(self.multipliers) > 1, tuple(self.attention) == (2,)
        factors = () if is_default and not halves else self.attention
        if kind == "unet":
            return UNet(inputs, outputs, **sizes, **blocks, attention=factors, **shared)
        length = shape[0]  # of a vector; its elements' values and features become channels
        inputs, outputs = inputs // length, outputs // length
        return SequenceUNet(inputs, outputs, **sizes, **blocks, attention=factors, **shared)


def _check_fits(
    net: Denoiser, shape: Sequence[int], inputs: int, outputs: int, context: Mapping[str, Any]
) -> None:
    """Raise ``ValueError`` unless a caller's own network takes and gives what it must."""
    along = len(shape) == 1 and len(net.input_shape) == 2  # a vector as a sequence
    split = [
        [count // shape[0], *shape] if along else [count, *shape[1:]] for count in (inputs, outputs)
    ]
    for name, wanted in zip(("input_shape", "output_shape"), split, strict=True):
        given = getattr(net, name)
        pairs = zip(given, wanted, strict=False)
        fits = len(given) == len(wanted) and all(a in (b, -1) for a, b in pairs)
        check(fits, "network", f"have {name} {tuple(wanted)}", tuple(given))
    for name in ("num_classes", "context_shape", "null_context"):
        expected, found = context.get(name) or None, getattr(net, name) or None
        if expected is not None and name == "context_shape":
            expected = tuple(expected)
        check(found == expected, "network", f"have {name} {expected}, as the model", found)
