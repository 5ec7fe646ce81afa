"""Published configurations by name: plain data, to which a family is added by its entries.

The tables lie beside this module, one for each kind of model.

Under a builder's or class's name and that of a data set there are ``model``, its options, and
``training``, settings of :class:`~pyro_genmodels.training.TrainingSettings`. Where a paper and its
code do something that these do not know, a comment says so.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import Any

from pyro_genmodels._checks import check_choice
from pyro_genmodels._configuration import with_groups
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.published.autoregressive import AUTOREGRESSIVE
from pyro_genmodels.models.published.diffusion import DIFFUSION
from pyro_genmodels.models.published.flows import FLOWS
from pyro_genmodels.models.published.format import Options, Table
from pyro_genmodels.models.published.latent_variables import LATENTS

_TABLE: Table = {**LATENTS, **DIFFUSION, **FLOWS, **AUTOREGRESSIVE}


def presets() -> dict[str, dict[str, dict[str, Options]]]:
    """Return all published configurations: builder, data set, then ``model`` and ``training``.

    Where a VQ-VAE's priors are published too, there is a third entry, ``prior``, with the options
    of :func:`~pyro_genmodels.models.learned_priors` as ``model``, and ``training``.

    Example:
        >>> presets()["glow"]["cifar10"]["model"]["num_steps"]
        32
    """
    return copy.deepcopy(_TABLE)


def preset(name: str, variant: str, **options: Any) -> GenerativeModel:
    """Make a model at a published size.

    Args:
        name: Name of a builder or model class, such as ``"glow"``.
        variant: Data set for which the paper chose the sizes.
        options: Options of the builder, which take the place of the paper's; of a group of
            arguments also some by name, ``network={"channels": 8}``.

    Returns:
        The model. Settings of the published training are
        ``presets()[name][variant]["training"]``; give them to
        :func:`~pyro_genmodels.training.fit`.

    Raises:
        ValueError: If there is no such configuration.

    Example:
        >>> model = preset("nice", "mnist", width=16)
        >>> model.event_shape
        torch.Size([1, 28, 28])
    """
    check_choice("name", name, _TABLE)
    check_choice("variant", variant, _TABLE[name])
    maker = getattr(importlib.import_module("pyro_genmodels.models"), name)
    published = presets()[name][variant]["model"]
    for key, value in options.items():
        both = isinstance(value, Mapping) and isinstance(published.get(key), Mapping)
        published[key] = {**published[key], **value} if both else value
    return maker(**with_groups(maker, published))
