"""The remedies: what each choice of an arm is, whose it is, what it needs. Data, no torch.

The numbers of a remedy are keys of the recipe (`bench.sae.recipe`), by default its authors'.
What is not here, and why, is in `NOT_HERE`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["prepare", "bias", "start", "revive", "schedule"]


class Remedy(NamedTuple):
    """What is done, in a few words; who proposed or uses it; what must be known before training.

    needs: what a sample of the activations has to give; nothing where it is empty.
    """

    kind: Kind
    what: str
    source: str
    needs: tuple[str, ...] = ()


# Methods that claim no dead features, and why they are not compared. Matryoshka SAEs are a family.
NOT_HERE = {
    "Aligned Training": "arXiv 2605.18629 fixes the inner product of each feature's encoder and "
    "decoder rows to one; by which parametrisation, we have not seen, and it decides the gradients",
    "AEN-SAE": "arXiv 2605.05341 replaces the L1 penalty by an adaptive elastic net, of which the "
    "weights are set for each dataset: there is no setting to take over",
}

# By what an arm's name has of them: a center or a norm as it stands there, or a word.
REMEDIES: dict[str, Remedy] = {
    "mean": Remedy(
        "prepare",
        "the mean is subtracted",
        "Simon, Adams and Zou 2026 (arXiv 2605.31518)",
        ("mean",),
    ),
    "geometric_median": Remedy(
        "prepare",
        "the geometric median is subtracted",
        "as a fixed center this project's; Bricken et al. 2023 start the bias there",
        ("geometric median",),
    ),
    "rms": Remedy(
        "prepare",
        "each token is divided by its root mean square",
        "SAELens' constant_norm_rescale",
    ),
    "layernorm": Remedy(
        "prepare",
        "each token has its mean subtracted and is divided by its standard deviation",
        "Gao et al. 2024; SAELens' layer_norm",
    ),
    "average": Remedy(
        "prepare",
        "one factor for all tokens makes their average norm sqrt(d)",
        "Conerly et al., April 2024; SAELens' expected_average_only_in",
        ("average norm",),
    ),
    "whiten": Remedy(
        "prepare",
        "PCA whitening: principal components, scaled to unit variance",
        "SAELens' covariance_whitening",
        ("mean", "covariance"),
    ),
    "zca": Remedy(
        "prepare",
        "ZCA whitening: the same, turned back to the original axes",
        "Bell and Sejnowski 1997",
        ("mean", "covariance"),
    ),
    "mask": Remedy(
        "prepare",
        "tokens over `mask_ratio` times the median norm are left out of the training",
        "this project's; such tokens: Sun et al. 2024 (arXiv 2402.17762)",
        ("median norm",),
    ),
    "b-mean": Remedy(
        "bias", "the decoder bias starts at the mean", "EleutherAI's sparsify", ("mean",)
    ),
    "b-median": Remedy(
        "bias",
        "the decoder bias starts at the geometric median",
        "Bricken et al. 2023; dictionary_learning; BioNeMo's --init-pre-bias",
        ("geometric median",),
    ),
    "b-fast": Remedy(
        "bias", "the decoder bias learns at `bias_rate` times the learning rate", "this project's"
    ),
    "enc-mean": Remedy(
        "bias",
        "the encoder bias starts at minus the mean pre-activation",
        "OpenMOSS' init_encoder_bias_with_mean_hidden_pre",
        ("mean",),
    ),
    "data": Remedy(
        "start",
        "rows start as tokens of a sample, scaled to unit norm",
        "as dictionaries do in K-SVD (Aharon, Elad and Bruckstein 2006)",
        ("n tokens",),
    ),
    "subspace": Remedy(
        "start",
        "rows start at random in the subspace of `active_variance` of the variance",
        "Active Subspace Init (arXiv 2508.16929)",
        ("covariance",),
    ),
    "auxk": Remedy(
        "revive",
        "dead features fit the residual, by their raw pre-activations",
        "after Gao et al. 2024, A.2, without their ReLU",
    ),
    "auxk-relu": Remedy(
        "revive", "dead features fit the residual, after a ReLU", "Gao et al. 2024, A.2"
    ),
    "ghost": Remedy(
        "revive",
        "dead features fit the residual, by the exponential of their pre-activations",
        "ghost gradients: Jermyn and Templeton, January 2024",
    ),
    "pre-act": Remedy(
        "revive",
        "pre-activations of dead features below their threshold cost",
        "Conerly et al., January 2025; SAELens' pre_act_loss_coefficient",
    ),
    "resample": Remedy(
        "revive",
        "features silent for long start again at tokens with a large loss, four times",
        "Bricken et al. 2023",
    ),
    "k-anneal": Remedy(
        "schedule",
        "k falls from `anneal_from` times its value at the start",
        "OpenMOSS' initial_k and k_warmup_steps",
    ),
    "lr-warmup": Remedy(
        "schedule",
        "the learning rate rises over the first steps",
        "dictionary_learning's warmup_steps; SAELens' lr_warm_up_steps",
    ),
    "longer": Remedy(
        "schedule",
        "more training steps, so many that they take about the time of AuxK's",
        "this project's: what else the time of a remedy would buy",
    ),
}
