"""What a diffusion model's chain sees of levels."""

from __future__ import annotations

import pytest
import torch

from pyro_genmodels import models
from pyro_genmodels.models import DiffusionModel
from pyro_genmodels.models.diffusion.encoding import ChainData

each_encoding = pytest.mark.parametrize("kind", ["levels", "bits", "learned"])


@pytest.mark.parametrize("kind", ["levels", "bits"])  # learned vectors move
@pytest.mark.parametrize("levels", [2, 3, 8, 17])
def test_least_distance_is_that_of_the_nearest_levels(kind: str, levels: int) -> None:
    data = ChainData((1, 2, 2), levels, models.LevelEncoding(kind))
    apart = torch.cdist(data.values.detach(), data.values.detach())
    nearest = apart[~torch.eye(levels, dtype=torch.bool)].min()
    torch.testing.assert_close(torch.tensor(data.least_distance), nearest)


@each_encoding
def test_is_made_where_there_are_no_values(kind: str) -> None:
    network = models.DenoisingNetwork(channels=8, num_blocks=1)
    options = {"num_levels": 5, "encoding": kind, "network": network}
    with torch.device("meta"):
        model = DiffusionModel((1, 4, 4), **options)
    made = DiffusionModel((1, 4, 4), **options)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.state_dict().keys() == made.state_dict().keys()
    model.to_empty(device="cpu").load_state_dict(made.state_dict())
    assert model.log_weights(torch.zeros(2, 1, 4, 4)).isfinite().all()


def test_many_levels_take_no_table_of_all_pairs() -> None:
    assert ChainData((4,), 2**16, models.LevelEncoding()).least_distance == 2**-15
