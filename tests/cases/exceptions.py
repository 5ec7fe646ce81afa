"""What has no case, and which laws a case is known to break, each with its reason."""

from __future__ import annotations

# Laws that a case is known to break, each with its reason. An entry that is no longer needed
# fails the battery.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("check_network", "MaskedConv2d"): "a layer, as torch's: exactly one batch dimension",
    ("check_evidence_normalized", "FlowModel/margin"): (
        "the margin's flow reaches beyond the levels; a sample there counts to the nearest level, "
        "the bound leaves it out (2 % of the mass here)"
    ),
    **{
        (law, "GaussianModel/levels"): (
            "a Gaussian reaches beyond the levels; a sample there counts to the nearest level, the "
            "bound leaves it out"
        )
        for law in ("check_evidence_normalized", "check_model_sampler")
    },
    **{
        ("check_estimators_agree", name): (
            "TraceMeanField_ELBO refuses a label that is inferred; "
            "tests/models/test_semi_supervised.py compares the others"
        )
        for name in (
            "SemiSupervisedVAE",
            "SemiSupervisedVAE/learned-prior",
            "SemiSupervisedVAE/given-prior",
            "SemiSupervisedVAE/missing",
        )
    },
    **{
        ("check_exact_distribution", f"MixtureModel/{name}"): (
            "it scores data together with their labels, which is no distribution over data"
        )
        for name in ("labels", "some-labels")
    },
    **{
        (law, "MixtureModel/labels"): (
            "the joint probability of data and their label sums to the label's"
        )
        for law in ("check_evidence_normalized", "check_model_sampler")
    },
    **{
        ("check_estimators_agree", f"MixtureModel{name}"): (
            "TraceMeanField_ELBO refuses a label that is inferred; "
            "tests/models/test_mixture.py compares the others"
        )
        for name in (
            "",
            "/chunks",
            "/classes",
            "/continuous",
            "/dequantized",
            "/dirichlet",
            "/given",
            "/nested",
            "/some-labels",
        )
    },
    **{
        ("check_standardization", f"DiffusionModel/{name}"): (
            "the least noise is the same in all directions of what the chain sees, in which each "
            "element of a vector has a scale of its own; DiffusionModel/continuous-image is held "
            "to the whole law"
        )
        for name in ("continuous", "geometric", "learned-variance")
    },
    ("check_sampler", "Checkerboard"): "uniform on squares: Stein's identity needs smooth tails",
}


# Laws that samples of a case cannot decide, each with its reason: not run.
UNDECIDABLE: dict[tuple[str, str], str] = {
    ("check_sampler", "RealNVP/image-into-unit-interval"): "the score's tails are too heavy at the "
    "edges of the interval for a mean with a standard error",
}


# Exported components that no line stands for, each with its reason.
NO_CASE: dict[str, str] = {
    "nets.CodeConditioner": "takes maps, not one event; held to the laws in CodeHierarchyNet",
    "transforms.Dequantize": "nothing without a context; held to the laws in a ConditionalFlow",
}


# Concrete components that are not exported, each with its reason. A component is what a checkpoint
# describes, a `Configured` class, or a `TorchDistribution`.
UNEXPORTED: dict[str, str] = {
    "nets.NVAENetwork": "`models` exports it, beside NVAE, whose argument it is",
    "nets.RawContext": "a ContextEmbedding without one, inside CodeHierarchyNet",
    "transforms.OnSqueezed": "inside RealNVP, Glow; Chain and Squeeze serve users",
    "models.AutoregressiveShifts": "NVAE's posterior flow, made by `NVAE(num_flows=)`",
    "distributions.ComponentOf": "inside MixtureModel; held to its laws",
    "distributions.IndependentElements": "Pyro's Independent, with a check of its values' shape",
    "distributions.FiniteLogistic": "Pyro's Logistic, less its infinite draw",
}
