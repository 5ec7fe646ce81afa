"""Compile densities of flows to one graph each; run by test_contract.py in its own process."""

import copy
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyro_genmodels import transforms
from tests.transforms.flows import make

# What an affine coupling evaluates once, by the kind of its scale.
MARKS = ("tanh", "sigmoid")


def compiles(name, *, train=False):
    flow, x = make(name, torch.float32)
    other = copy.deepcopy(flow)
    flow.initialize(x)
    other.load_state_dict(flow.state_dict())
    for part in (flow, other) if "glow" in name else (flow,):
        torch._dynamo.reset()
        compiles_to_one_graph(part.train(train), x)


def compiles_to_one_graph(flow, x):
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
    nodes = [n for n in graphs[0].graph.nodes if any(m in str(n.target) for m in MARKS)]
    couplings = [m for m in flow.modules() if isinstance(m, transforms.AffineCoupling)]
    marked = [m for m in couplings if m.scale in MARKS]
    assert (len(graphs), len(nodes)) == (1, len(marked)), (len(graphs), len(nodes), len(marked))
    assert flow._traced is None


torch.set_num_threads(1)
for name in ("real_nvp 5", "real_nvp 1x4x4", "chain", "glow 1x4x4", "spline half 3"):
    compiles(name)
compiles("glow 1x4x4", train=True)
