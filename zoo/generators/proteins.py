"""Protein families, grown by a substitution model along trees.

A family is an ancestor folded on paper: helices, strands and coils, with buried and exposed sites
at the periods of their structure (D. Eisenberg, R. Weiss, T. Terwilliger, PNAS 81 (1984)). Every
site has a class with amino-acid frequencies of its own, as in the CAT model of N. Lartillot and
H. Philippe, MBE 21 (2004), made from the propensities of P. Chou and G. Fasman, Adv. Enzymol. 47
(1978), the hydropathy scale of J. Kyte and R. Doolittle, J. Mol. Biol. 157 (1982) and the average
composition of Swiss-Prot. Every site has a gamma-distributed rate (Z. Yang, MBE 10 (1993)).

Residues change by a reversible Markov process with rates q(a, b) = s(a, b) pi(b) along a tree
(J. Felsenstein, J. Mol. Evol. 17 (1981)). The exchangeability s falls with the physico-chemical
distance of R. Grantham, Science 185 (1974), so leucine turns into isoleucine more often than into
aspartate. Coils gain and lose short stretches. The branch from the tree to a sequence is drawn
anew each time: a world holds any number of different sequences.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.generators.seeds import draw_generator, world_generator
from zoo.letters import AMINO_ACIDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1


# Per amino acid, in the order of AMINO_ACIDS: percent of Swiss-Prot; Kyte and Doolittle's
# hydropathy; Chou and Fasman's helix, strand and turn propensities; Grantham's composition,
# polarity and volume.
# fmt: off
_FREQUENCY = (8.25, 1.38, 5.46, 6.72, 3.86, 7.07, 2.27, 5.91, 5.80, 9.65,
              2.41, 4.06, 4.74, 3.93, 5.53, 6.65, 5.36, 6.86, 1.10, 2.92)
_HYDROPATHY = (1.8, 2.5, -3.5, -3.5, 2.8, -0.4, -3.2, 4.5, -3.9, 3.8,
               1.9, -3.5, -1.6, -3.5, -4.5, -0.8, -0.7, 4.2, -0.9, -1.3)
_PROPENSITY = {
    "helix": (1.42, 0.70, 1.01, 1.51, 1.13, 0.57, 1.00, 1.08, 1.16, 1.21,
              1.45, 0.67, 0.57, 1.11, 0.98, 0.77, 0.83, 1.06, 1.08, 0.69),
    "strand": (0.83, 1.19, 0.54, 0.37, 1.38, 0.75, 0.87, 1.60, 0.74, 1.30,
               1.05, 0.89, 0.55, 1.10, 0.93, 0.75, 1.19, 1.70, 1.37, 1.47),
    "coil": (0.66, 1.19, 1.46, 0.74, 0.60, 1.56, 0.95, 0.47, 1.01, 0.59,
             0.60, 1.56, 1.52, 0.98, 0.95, 1.43, 0.96, 0.50, 0.96, 1.14),
}
_COMPOSITION = (0, 2.75, 1.38, 0.92, 0, 0.74, 0.58, 0, 0.33, 0,
                0, 1.33, 0.39, 0.89, 0.65, 1.42, 0.71, 0, 0.13, 0.20)
_POLARITY = (8.1, 5.5, 13.0, 12.3, 5.2, 9.0, 10.4, 5.2, 11.3, 4.9,
             5.7, 11.6, 8.0, 10.5, 10.5, 9.2, 8.6, 5.9, 5.4, 6.2)
_VOLUME = (31, 55, 54, 83, 132, 3, 96, 111, 119, 111,
           105, 56, 32.5, 85, 124, 32, 61, 84, 170, 136)
# fmt: on

# (structure, effect of hydropathy on frequency): buried sites like what water does not.
_ENVIRONMENTS = (
    ("helix", 0.35),
    ("helix", -0.25),
    ("strand", 0.35),
    ("strand", -0.25),
    ("coil", -0.10),
)
_COIL = 4
_VARIANTS = 8  # site classes per environment
_KIND = "families"
_TREE_NODES = 12
_BRANCH = 0.25  # mean length, expected substitutions per site of rate 1
_RATE_SHAPE = 0.5
_INDELS = 0.02  # events per site and unit of branch length


@dataclass(frozen=True)
class Sequence:
    """A protein in its tree: one entry per site in each array."""

    residue: NDArray[np.intp]
    site_class: NDArray[np.intp]
    rate: NDArray[np.float64]

    def __str__(self) -> str:
        return "".join(AMINO_ACIDS[index] for index in self.residue.tolist())


@dataclass(frozen=True)
class _Substitution:
    """Reversible rate matrices, one per site class, by their symmetric eigensystems."""

    frequency: NDArray[np.float64]  # (classes, 20)
    rates: NDArray[np.float64]  # (classes, 20), eigenvalues
    modes: NDArray[np.float64]  # (classes, 20, 20), eigenvectors of sqrt(pi) Q / sqrt(pi)

    def transition(
        self, site_class: NDArray[np.intp], residue: NDArray[np.intp], time: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """P(next residue) per site, (sites, 20), after `time` from `residue`."""
        import numpy as np

        root = np.sqrt(self.frequency)[site_class]
        sites = np.arange(len(residue))
        start = self.modes[site_class, residue] / root[sites, residue][:, None]
        decay = np.exp(self.rates[site_class] * time[:, None])
        rows = np.einsum("sk,sjk->sj", start * decay, self.modes[site_class]) * root
        return np.asarray(np.clip(rows, 0.0, None))


def families(count: int, seed: int, *, number: int = 16, world: int = 0) -> Iterator[str]:
    """Yield `count` protein sequences of the 20 letters in `AMINO_ACIDS`, about 60 to 200 long.

    They come from `number` families; family i is drawn with probability proportional to
    1 / sqrt(1 + i).
    """
    for _, sequence in labelled_families(count, seed, number=number, world=world):
        yield sequence


def labelled_families(
    count: int, seed: int, *, number: int = 16, world: int = 0
) -> Iterator[tuple[int, str]]:
    """As `families`, each sequence with the number of its family."""
    import numpy as np

    rng = draw_generator(_KIND, world, seed)
    trees, model = _trees(number, world), _substitution(world)
    weight = 1 / np.sqrt(1 + np.arange(number))
    shares = np.cumsum(weight / weight.sum())
    for _ in range(count):
        family = int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))
        node = trees[family][rng.integers(_TREE_NODES)]
        yield family, str(_evolve(rng, model, node, rng.exponential(_BRANCH)))


def grantham_distance() -> NDArray[np.float64]:
    """The 20 x 20 distances of Grantham 1974, equation 1 (0 for equal, 215 at most)."""
    import numpy as np

    terms = ((1.833, _COMPOSITION), (0.1018, _POLARITY), (0.000399, _VOLUME))
    columns = [(factor, np.array(values, dtype=float)) for factor, values in terms]
    squares = sum(f * np.square(np.subtract.outer(v, v)) for f, v in columns)
    return np.asarray(50.723 * np.sqrt(squares))


@functools.cache
def _substitution(world: int) -> _Substitution:
    import numpy as np

    rng = world_generator(_KIND, world)
    frequency = np.array(_FREQUENCY) / sum(_FREQUENCY)
    classes = []
    for structure, effect in _ENVIRONMENTS:
        mean = frequency * np.array(_PROPENSITY[structure]) ** 1.5
        mean = mean * np.exp(effect * np.array(_HYDROPATHY))
        # A small concentration: each class of sites wants a few amino acids, not the average.
        classes.append(rng.dirichlet(6 * mean / mean.sum() + 0.02, size=_VARIANTS))
    pi = np.concatenate(classes) + 1e-4
    pi /= pi.sum(axis=1, keepdims=True)

    exchange = np.exp(-grantham_distance() / 60)
    np.fill_diagonal(exchange, 0.0)
    rate = exchange * pi[:, None, :]
    leaving = rate.sum(axis=2)
    speed = (leaving * pi).sum(axis=1)[:, None, None]  # one expected substitution per unit of time
    generator = (rate - leaving[:, :, None] * np.eye(20)) / speed
    root = np.sqrt(pi)
    symmetric = generator * root[:, :, None] / root[:, None, :]
    values, modes = np.linalg.eigh((symmetric + symmetric.transpose(0, 2, 1)) / 2)
    return _Substitution(pi, values, modes)


@functools.cache
def _trees(number: int, world: int) -> list[list[Sequence]]:
    """The inner nodes of each family's tree; a new node branches off a random earlier one."""
    rng = world_generator(f"{_KIND} trees", world)
    model = _substitution(world)
    trees = []
    for _ in range(number):
        nodes = [_ancestor(rng, model)]
        while len(nodes) < _TREE_NODES:
            parent = nodes[rng.integers(len(nodes))]
            nodes.append(_evolve(rng, model, parent, rng.exponential(_BRANCH)))
        trees.append(nodes)
    return trees


def _ancestor(rng: np.random.Generator, model: _Substitution) -> Sequence:
    import numpy as np

    environment: list[int] = []
    for _ in range(rng.integers(5, 11)):
        if rng.random() < 0.55:  # helix: 100 degrees per residue, a third of it buried
            phase = rng.uniform(0, 2 * np.pi)
            turn = np.cos(np.deg2rad(100) * np.arange(rng.integers(9, 17)) + phase)
            environment += np.where(turn > 0.3, 0, 1).tolist()
        else:  # strand: every other residue buried
            first = rng.integers(2)
            side = (np.arange(rng.integers(5, 9)) + first) % 2
            environment += np.where(side == 1, 2, 3).tolist()
        environment += [_COIL] * int(rng.integers(2, 7))
    classes = np.array(environment) * _VARIANTS + rng.integers(_VARIANTS, size=len(environment))
    rate = rng.gamma(_RATE_SHAPE, 1 / _RATE_SHAPE, size=len(classes))
    residue = _sample(rng, model.frequency[classes])
    # Translation starts at a methionine, which never changes.
    residue[0], rate[0] = AMINO_ACIDS.index("M"), 0.0
    return Sequence(residue, classes, rate)


def _evolve(
    rng: np.random.Generator, model: _Substitution, parent: Sequence, time: float
) -> Sequence:
    """A descendant after a branch of length `time`: substitutions, then insertions, deletions."""
    chances = model.transition(parent.site_class, parent.residue, parent.rate * time)
    child = Sequence(_sample(rng, chances), parent.site_class, parent.rate)
    for _ in range(rng.poisson(_INDELS * time * len(child.residue))):
        child = _indel(rng, model, child)
    return child


def _indel(rng: np.random.Generator, model: _Substitution, parent: Sequence) -> Sequence:
    """Insert or delete a short stretch in a coil (geometric length, 2 on average)."""
    import numpy as np

    coil = np.flatnonzero(parent.site_class // _VARIANTS == _COIL)
    if len(coil) < 4:  # hardly a coil left to change
        return parent
    at, length = int(coil[rng.integers(len(coil))]), int(rng.geometric(0.5))
    if rng.random() < 0.5:
        gone = np.arange(at, min(at + length, len(parent.residue)))
        gone = gone[parent.site_class[gone] // _VARIANTS == _COIL]
        kept = np.delete(np.arange(len(parent.residue)), gone)
        return Sequence(parent.residue[kept], parent.site_class[kept], parent.rate[kept])
    site_class = _COIL * _VARIANTS + rng.integers(_VARIANTS, size=length)
    residue = _sample(rng, model.frequency[site_class])
    rate = rng.gamma(_RATE_SHAPE, 1 / _RATE_SHAPE, size=length)
    return Sequence(
        np.insert(parent.residue, at, residue),
        np.insert(parent.site_class, at, site_class),
        np.insert(parent.rate, at, rate),
    )


def _sample(rng: np.random.Generator, weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """One index per row of `weights`, by the inverse of its cumulative sum."""
    import numpy as np

    cumulative = np.cumsum(weights, axis=1)
    thresholds = rng.random(len(weights)) * cumulative[:, -1]
    return np.asarray((cumulative <= thresholds[:, None]).sum(axis=1))
