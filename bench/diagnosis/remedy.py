"""What to do about a diagnosis, as code: in plain PyTorch that runs, and each library's switch.

The lines follow the arm that the rule of thumb names (`bench.diagnosis.rule`). What the libraries
do is said of SAELens 6.54, sparsify 1.3, dictionary_learning 0.1 and saev 0.1.
"""

from __future__ import annotations

from bench.diagnosis.numbers import DiagnosisNumbers
from bench.diagnosis.verdict import tokens_needed
from bench.sae.arms import Arm, parse_arm
from bench.statistics.token_norms import MASSIVE_RATIO

_MASK = f"""\
# without massive tokens
norms = x.norm(dim=1)
x = x[norms <= {MASSIVE_RATIO:.0f} * norms.median()]
# if they are special tokens, or the first of their sequences, the libraries leave them out by
# SAELens: LanguageModelSAERunnerConfig(exclude_special_tokens=True)
# sparsify: TrainConfig(exclude_tokens=[...]), their ids
# dictionary_learning: ActivationBuffer(remove_bos=True), the first of each sequence
"""

_CENTER = """\
# centered by the geometric median, before training and wherever the SAE is used
center = x.mean(0)
for _ in range(50):
    weights = 1 / (x - center).norm(dim=1, keepdim=True).clamp(min=1e-8)
    center = (weights * x).sum(0) / weights.sum()
x = x - center
# SAELens: bench.watch(trainer, center=True) begins b_dec there; it has no option that centers alone
# dictionary_learning: TopK, BatchTopK and Matryoshka trainers begin b_dec there by themselves
# sparsify: begins b_dec at the mean of its first batch by itself
# saev: DataLoad(scale_mean=True), which is its default, subtracts the mean
"""

_AUXK = """\
# AuxK: add this to the loss of each step. error = x - x_hat, pre and dead are [tokens, n] and [n]
def auxk(error, pre, dead, W_dec, aux_k=512):
    values, places = pre.where(dead, -torch.inf).topk(min(aux_k, pre.shape[1]))
    values = values.where(values.isfinite(), 0).relu()  # fewer may be dead than aux_k
    codes = torch.zeros_like(pre).scatter(1, places, values)
    missed = (error.detach() - codes @ W_dec).square().mean()
    return missed / (error - error.mean(0)).detach().square().mean() / 32
"""

# By library: whether its AuxK puts a ReLU between pre-activations and codes, and its switch.
_SWITCHES = (
    (False, "SAELens", "TopKTrainingSAEConfig(aux_loss_coefficient=1.0), which is its default"),
    (True, "dictionary_learning", "TopKTrainer(auxk_alpha=1/32), which is its default"),
    (True, "sparsify", "TrainConfig(auxk_alpha=1/32), by default 0; trains its decoder alone"),
)


def remedy_code(found: DiagnosisNumbers) -> str:
    """What to do with `x`, the activations [tokens, width], in Python that runs."""
    lines = "\n".join(f"    {line}" for line in _lines(found))
    title = "as insurance" if found.verdict.action == "no action needed" else "what to do"
    return f"{title}:\n{lines}" if lines else ""


def _lines(found: DiagnosisNumbers) -> list[str]:
    if found.verdict.arm is not None:
        return _arm_lines(parse_arm(found.verdict.arm))
    mask = _MASK.splitlines() if found.without_massive is not None else []
    if found.verdict.action == "more tokens":
        enough = tokens_needed(found.n, found.k)
        return [*mask, f"assert len(x) >= {enough:_}  # collect so many tokens, then ask again"]
    smaller = f"print(bench.diagnose(x, n={max(found.n // 4, found.k + 1)}, k={found.k}))"
    return [*mask, "import bench", smaller]


def _arm_lines(arm: Arm) -> list[str]:
    """An arm that the rule of thumb names."""
    parts = [
        _MASK if arm.tokens == "mask" else "",
        _CENTER if arm.center == "geometric_median" else "",
        f"import torch\n{_auxk(arm)}" if arm.aux in ("auxk", "auxk-relu") else "",
    ]
    code = "".join(parts).splitlines()
    return [*code, f"# here: bench run --arm {arm.name}"] if code else []


def _auxk(arm: Arm) -> str:
    """The loss, with the ReLU of its authors or without it; libraries that do the same first."""
    relu = arm.aux == "auxk-relu"
    loss = _AUXK if relu else _AUXK.replace(".relu()", "")
    words = {relu: "the same", not relu: "without the ReLU" if relu else "with a ReLU"}
    lines = [
        f"# {library}: {words[own]}: {switch}\n"
        for own, library, switch in sorted(_SWITCHES, key=lambda each: each[0] != relu)
    ]
    return loss + "".join(lines) + "# saev: has none; add this one to its loss\n"
