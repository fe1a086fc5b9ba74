"""Single cells as rank value encodings, drawn from made types of cells.

Counts of a gene in cells of one type are gamma-Poisson, the usual model of sequenced single cells
(M. D. Robinson, G. K. Smyth, Biostatistics 9 (2008); C. Hafemeister, R. Satija, Genome Biol. 20
(2019)): the mean is the gene's share of the type's transcripts times the depth of the cell, and the
dispersion is one number for all. Shares are log-normal over genes; a type changes those of the
genes in its programs. The depth of a cell is log-normal.

What a cell gives is what Geneformer's tokenizer would make of its counts: the ids of the genes that
were counted, in descending order of their share of the cell's counts, divided by the gene's mean
where it is counted at all (the tokenizer divides by the median). Without `<cls>` and `<eos>`.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo.generators.seeds import draw_generator, world_generator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1

_KIND = "cells"
_SPREAD = 1.5  # standard deviation of the logarithm of genes' shares
_PROGRAMS = 32
_PROGRAM = 0.05  # share of the genes that are in a program
_OF_A_TYPE = 6  # programs that are on in a type
_CHANGE = 1.5  # standard deviation of the logarithm by which a program changes a gene's share
_DISPERSION = 0.5
_DEPTH = (8.3, 0.5)  # mean and standard deviation of the logarithm of a cell's counts


def cells(
    count: int,
    seed: int,
    *,
    genes: int = 20271,
    first: int = 4,
    types: int = 24,
    world: int = 0,
) -> Iterator[array[int]]:
    """Yield `count` cells, each the ids of its genes, from `first` to `first + genes - 1`.

    A cell is of one of `types` types, each as likely as the others.
    """
    import numpy as np

    rng = draw_generator(_KIND, world, seed)
    shares, usual = _types(genes, types, world)
    for _ in range(count):
        depth = rng.lognormal(*_DEPTH)
        mean = depth * shares[rng.integers(types)]
        counts = rng.poisson(mean * rng.gamma(1 / _DISPERSION, _DISPERSION, size=genes))
        found = np.flatnonzero(counts)
        # Ties stand in the order of the ids, as a stable sort leaves them.
        order = np.argsort(-counts[found] / (counts.sum() * usual[found]), kind="stable")
        yield array("i", (found[order] + first).tolist())


@functools.cache
def _types(genes: int, types: int, world: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each type's share of transcripts per gene, (types, genes), and what is usual of a gene."""
    import numpy as np

    rng = world_generator(_KIND, world)
    basis = rng.normal(scale=_SPREAD, size=genes)
    programs = rng.normal(scale=_CHANGE, size=(_PROGRAMS, genes))
    programs *= rng.random(programs.shape) < _PROGRAM
    on = np.zeros((types, _PROGRAMS))
    for row in on:
        row[rng.choice(_PROGRAMS, _OF_A_TYPE, replace=False)] = 1.0
    shares = np.exp(basis + on @ programs)
    shares /= shares.sum(axis=1, keepdims=True)
    # The mean count where there is one, m / (1 - exp(-m)) of a Poisson count, as a share.
    depth = np.exp(_DEPTH[0])
    mean = depth * shares.mean(axis=0)
    return shares, mean / -np.expm1(-mean) / depth
