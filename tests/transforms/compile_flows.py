"""Compile densities of flows to one graph each; run by test_contract.py in its own process."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyro_genmodels import transforms
from tests.transforms.flows import make

torch.set_num_threads(1)
for name in ("real_nvp 5", "real_nvp 1x4x4", "chain"):
    flow, x = make(name, torch.float32)
    y = flow(x).detach()
    graphs = []

    def log_det(value, flow=flow):
        return flow.log_abs_det_jacobian(flow.inv(value), value)

    def count_graphs(module, inputs, graphs=graphs):
        graphs.append(module)
        return module.forward

    expected = log_det(y)  # also makes the inverse, whose first use would compile once more
    compiled = torch.compile(log_det, backend=count_graphs, fullgraph=True)
    for value in (y, y + 0):
        torch.testing.assert_close(compiled(value), expected)
    nodes = [n for n in graphs[0].graph.nodes if "tanh" in str(n.target)]
    couplings = [m for m in flow.modules() if isinstance(m, transforms.AffineCoupling)]
    assert (len(graphs), len(nodes)) == (1, len(couplings)), (len(graphs), len(nodes))
    assert flow._traced is None
