"""Data sets drawn from a distribution, which stays at hand for the gap to the optimum."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from pyro_genmodels._checks import check
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.exact_distribution import ExactDistribution


class Sampled(DataSource):
    """Samples of a distribution whose exact log-probability and entropy are known.

    Score a model by the paired gap on the very test samples:
    ``metrics.paired_gap(source.distribution.log_prob(x), log_p_model)``.

    Args:
        distribution: Any exact distribution of this sub-package.
        train: Number of training samples.
        validation: Number of validation samples.
        test: Number of test samples.
        seed: Seed of the samples. Torch's own random state is left as it was.

    Raises:
        ValueError: If ``distribution`` is of another kind or has a batch shape, or a number is
            not positive.

    Example:
        >>> from pyro_genmodels import data
        >>> source = Sampled(data.BarsAndStripes(4), train=100, validation=10, test=20)
        >>> source
        Sampled BarsAndStripes(100/10/20 of shape (1, 4, 4), 2 levels)
        >>> source.distribution.log_prob(source.test.tensors[0]).shape
        torch.Size([20])
    """

    def __init__(
        self,
        distribution: ExactDistribution,
        *,
        train: int = 20_000,
        validation: int = 1_000,
        test: int = 5_000,
        seed: int = 0,
    ) -> None:
        exact = isinstance(distribution, ExactDistribution)
        rule = "be an exact distribution of pyro_genmodels.data"
        check(exact, "distribution", rule, type(distribution).__name__)
        check(not distribution.batch_shape, "distribution", "have no batch shape", distribution)
        for argument, size in (("train", train), ("validation", validation), ("test", test)):
            check(size >= 1, argument, "be at least 1", size)
        self.distribution = distribution
        # On the CPU whatever the distribution's device: the same samples on every machine.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
            samples = distribution.to("cpu").sample((train + validation + test,))
        if distribution.num_levels is not None and distribution.num_levels <= 256:
            samples = samples.to(torch.uint8)
        parts = samples.split([train, validation, test])
        super().__init__(
            *(TensorDataset(part) for part in parts), num_levels=distribution.num_levels
        )

    @property
    def name(self) -> str:
        """Name of the distribution."""
        return f"Sampled {type(self.distribution).__name__}"
