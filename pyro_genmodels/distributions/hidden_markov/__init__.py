"""Hidden Markov models: sums and maxima over all paths of hidden states."""

from pyro_genmodels.distributions.hidden_markov.hidden_markov import HiddenMarkov as HiddenMarkov
from pyro_genmodels.distributions.hidden_markov.partition import expected_counts as expected_counts
from pyro_genmodels.distributions.hidden_markov.partition import log_partition as log_partition
from pyro_genmodels.distributions.hidden_markov.partition import (
    posterior_marginals as posterior_marginals,
)
from pyro_genmodels.distributions.hidden_markov.paths import draw_paths as draw_paths
from pyro_genmodels.distributions.hidden_markov.paths import (
    most_probable_path as most_probable_path,
)
