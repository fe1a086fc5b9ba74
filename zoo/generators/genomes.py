"""Stretches of made-up genome: isochores, genes with codons, promoters, enhancers, motifs.

The composition changes from one isochore to the next, with the GC levels and abundances of the
five families of G. Bernardi, "Isochores and the evolutionary genomics of vertebrates", Gene 241
(2000); isochores are scaled down from hundreds of kilobases to hundreds of bases, so that a model
with a short window meets their borders. Outside of promoters CpG is depleted by deamination
(A. Bird, NAR 8 (1980)); promoters are CpG islands (M. Gardiner-Garden, M. Frommer, J. Mol. Biol.
196 (1987)). Genes are open reading frames without introns, in the standard genetic code, with a
codon usage whose third positions follow the isochore (GC3; S. Aota, T. Ikemura, NAR 14 (1986)),
after a TATA box and a Kozak sequence and before a polyadenylation signal, on either strand.
Transcription factors are position weight matrices (G. Stormo, Bioinformatics 16 (2000)); their
sites are planted in promoters and in enhancers, and bind with a logistic occupancy (O. Berg,
P. von Hippel, J. Mol. Biol. 193 (1987)).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.generators.seeds import draw_generator, world_generator
from zoo.letters import BASES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1

_CODON_BASES = "TCAG"
GENETIC_CODE = dict(
    zip(
        (a + b + c for a in _CODON_BASES for b in _CODON_BASES for c in _CODON_BASES),
        "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        strict=True,
    )
)
STOPS = tuple(codon for codon, amino in GENETIC_CODE.items() if amino == "*")

MOTIFS = 8
_ISOCHORE_GC = (0.35, 0.39, 0.43, 0.49, 0.56)  # L1, L2, H1, H2, H3
_ISOCHORE_SHARE = (0.19, 0.37, 0.31, 0.11, 0.02)
_ISOCHORE_LENGTH = 700
_PROMOTER_LENGTH = 140
_PROMOTER_GC = 0.62
_UTR_LENGTH = 40
_CODONS = (50, 130)
_GAP = 250  # mean number of bases between two genes
_CPG_KEPT = 0.25
_MARGIN = 800  # drawn on each side and cut off: what stands at an edge began before it
_KIND = "genomes"

TRACKS = (
    *(f"binding {index}" for index in range(MOTIFS)),
    "accessibility",
    "initiation",
    "transcription +",
    "transcription -",
    "gc",
)


@dataclass(frozen=True)
class Gene:
    """Where a gene lies, in bases of the forward strand, ends exclusive; may leave the window.

    `start` and `end` bound what is transcribed; `coding_start` and `coding_end` run from the
    start codon's first base to the stop codon's last, on either strand.
    """

    start: int
    end: int
    coding_start: int
    coding_end: int
    strand: int  # +1 or -1

    @property
    def initiation(self) -> int:
        """The position of the first base transcribed."""
        return self.start if self.strand > 0 else self.end - 1


@dataclass(frozen=True)
class Genome:
    sequence: str
    genes: tuple[Gene, ...]
    isochore: NDArray[np.float64]  # (length,), the GC level that each base was drawn at


@dataclass(frozen=True)
class _World:
    motifs: tuple[NDArray[np.float64], ...]  # each (width, 4), probabilities
    effects: NDArray[np.float64]  # (motifs,), of a bound site on the log of expression
    usage: NDArray[np.float64]  # (61,), weight of each sense codon before the tilt by GC3
    codons: NDArray[np.uint8]  # (61, 3)


def genomes(length: int, count: int, seed: int, *, world: int = 0) -> Iterator[str]:
    """Yield `count` sequences of `length` bases of A, C, G and T."""
    for genome in annotated_genomes(length, count, seed, world=world):
        yield genome.sequence


def annotated_genomes(length: int, count: int, seed: int, *, world: int = 0) -> Iterator[Genome]:
    """As `genomes`, each sequence with its genes and isochores: the same draws."""
    rng = draw_generator(_KIND, world, seed)
    for _ in range(count):
        yield _draw(rng, length, _world(world))


def occupancy(sequence: str, *, world: int = 0) -> NDArray[np.float64]:
    """How bound each transcription factor is at each base, (MOTIFS, length), from 0 to 1.

    At the middle of a site, on the strand where it scores better: the logistic of its log-odds
    score (nats, against equal bases) above a threshold of 60 % of the motif's best.
    """
    import numpy as np

    bases = _encode(sequence)
    bound = np.zeros((MOTIFS, len(bases)))
    for index, motif in enumerate(_world(world).motifs):
        width = len(motif)
        if len(bases) < width:
            continue
        score = np.log(motif * 4)
        windows = np.lib.stride_tricks.sliding_window_view(bases, width)
        columns = np.arange(width)
        forward = score[columns, windows].sum(axis=1)
        backward = score[::-1, ::-1][columns, windows].sum(axis=1)
        threshold = 0.6 * score.max(axis=1).sum()
        at = slice(width // 2, width // 2 + len(windows))
        bound[index, at] = 1 / (1 + np.exp(threshold - np.maximum(forward, backward)))
    return bound


def tracks(genome: Genome, bin_size: int, *, world: int = 0) -> NDArray[np.float64]:
    """What an experiment would count, per bin: (length // bin_size, len(TRACKS)), not negative.

    binding: occupancy, blurred as by fragments of 60 bases; accessibility: any factor bound;
    initiation: at the genes' first bases, as high as their expression; transcription: expression
    over the gene, by strand; gc: the share of G and C. Each is scaled to be of order one.
    Expression is the exponential of the bound sites' effects, fading over 200 bases.
    """
    import numpy as np

    length = len(genome.sequence)
    bound = occupancy(genome.sequence, world=world)
    kernel = np.exp(-(np.arange(-60, 61) ** 2) / (2 * 25.0**2))
    kernel /= kernel.sum()

    def blur(signal: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.convolve(signal, kernel, mode="same")

    drive = _world(world).effects @ bound
    initiation, transcription = np.zeros(length), np.zeros((2, length))
    for gene in genome.genes:
        near = np.exp(-abs(np.arange(length) - gene.initiation) / 200)
        expression = np.exp(np.clip(drive @ near, -3, 3))
        inside = slice(max(gene.start, 0), max(gene.end, 0))
        transcription[0 if gene.strand > 0 else 1, inside] += expression
        if 0 <= gene.initiation < length:
            initiation[gene.initiation] += expression
    bases = _encode(genome.sequence)
    signals = [
        *(100 * blur(row) for row in bound),
        4 * (1 - np.exp(-20 * blur(bound.sum(axis=0)))),
        60 * blur(initiation),
        *transcription,
        2.0 * ((bases == 1) | (bases == 2)),
    ]
    bins = length // bin_size
    whole = np.stack(signals)[:, : bins * bin_size]
    return np.asarray(whole.reshape(len(TRACKS), bins, bin_size).mean(axis=2).T)


@functools.cache
def _world(world: int) -> _World:
    import numpy as np

    rng = world_generator(_KIND, world)
    motifs = []
    for _ in range(MOTIFS):
        columns = rng.dirichlet(np.full(4, 0.12), size=int(rng.integers(9, 13)))
        motifs.append((columns + 0.01) / 1.04)
    effects = rng.permutation(np.linspace(-0.8, 1.6, MOTIFS))
    sense = [codon for codon, amino in GENETIC_CODE.items() if amino != "*"]
    aminos = [GENETIC_CODE[codon] for codon in sense]
    share = {amino: rng.gamma(4.0) for amino in sorted(set(aminos))}
    usage = np.array([share[amino] / aminos.count(amino) for amino in aminos])
    usage *= rng.gamma(2.0, 0.5, size=len(sense))  # the preferred among synonymous codons
    codons = np.stack([_encode(codon) for codon in sense])
    return _World(tuple(motifs), effects, usage / usage.sum(), codons)


def _draw(rng: np.random.Generator, length: int, world: _World) -> Genome:
    import numpy as np

    total = length + 2 * _MARGIN
    isochore = _isochores(rng, total)
    bases = _background(rng, isochore)
    genes = []
    at = int(rng.exponential(_GAP))
    while True:
        strand = 1 if rng.random() < 0.5 else -1
        unit, coding = _gene(rng, world, float(isochore[min(at, total - 1)]))
        if at + len(unit) > total:
            break
        start, end = at + _PROMOTER_LENGTH, at + len(unit)
        coding_start, coding_end = at + coding.start, at + coding.stop
        if strand < 0:  # mirrored within the unit
            unit = 3 - unit[::-1]
            mirror = 2 * at + len(unit)
            start, end = mirror - end, mirror - start
            coding_start, coding_end = mirror - coding_end, mirror - coding_start
        bases[at : at + len(unit)] = unit
        genes.append(Gene(start, end, coding_start, coding_end, strand))
        gap = int(rng.exponential(_GAP))
        _plant(rng, world, bases, at + len(unit), at + len(unit) + gap, sites=gap // 80)
        at += len(unit) + gap
    window = slice(_MARGIN, _MARGIN + length)
    seen = (_shift(gene, -_MARGIN) for gene in genes)
    return Genome(
        _decode(bases[window]),
        tuple(gene for gene in seen if gene.end > 0 and gene.start < length),
        np.asarray(isochore[window]),
    )


def _shift(gene: Gene, by: int) -> Gene:
    return Gene(
        gene.start + by, gene.end + by, gene.coding_start + by, gene.coding_end + by, gene.strand
    )


def _isochores(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """The GC level of each base, constant over stretches of geometric length."""
    import numpy as np

    borders = rng.random(length) < 1 / _ISOCHORE_LENGTH
    family = np.searchsorted(np.cumsum(_ISOCHORE_SHARE), rng.random(int(borders.sum()) + 1))
    levels = np.array(_ISOCHORE_GC)[np.minimum(family, len(_ISOCHORE_GC) - 1)]
    levels = np.clip(levels + rng.normal(0, 0.01, len(levels)), 0.2, 0.8)
    return np.asarray(levels[np.cumsum(borders)])


def _background(rng: np.random.Generator, gc: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Independent bases at the given GC levels; most CpG then mutate to TpG or CpA."""
    import numpy as np

    strong, second = rng.random(len(gc)) < gc, rng.random(len(gc)) < 0.5
    bases = np.where(strong, np.where(second, 1, 2), np.where(second, 0, 3)).astype(np.uint8)
    islands = np.flatnonzero((bases[:-1] == 1) & (bases[1:] == 2))
    fate = rng.random(len(islands))
    mutated = 1 - _CPG_KEPT
    bases[islands[fate < mutated / 2]] = 3
    bases[islands[(fate >= mutated / 2) & (fate < mutated)] + 1] = 0
    return bases


def _gene(rng: np.random.Generator, world: _World, gc: float) -> tuple[NDArray[np.uint8], slice]:
    """A promoter, a gene on the forward strand, and where its coding part lies in them."""
    import numpy as np

    promoter = _compose(rng, _PROMOTER_LENGTH, _PROMOTER_GC)
    _plant(rng, world, promoter, 0, _PROMOTER_LENGTH - 40, sites=int(rng.integers(1, 4)))
    tata = _encode("TATA" + BASES[3 * rng.integers(2)] + "A" + BASES[3 * rng.integers(2)])
    promoter[-30 : -30 + len(tata)] = tata
    utr = _compose(rng, _UTR_LENGTH, 0.5)
    utr[-6:] = _encode("GCCACC")

    tilt = ((world.codons == 1) | (world.codons == 2))[:, 2]
    weight = world.usage * np.where(tilt, gc, 1 - gc) ** 2
    number = int(rng.integers(*_CODONS))
    chosen = np.searchsorted(np.cumsum(weight / weight.sum()), rng.random(number))
    body = world.codons[np.minimum(chosen, len(weight) - 1)].ravel()
    stop = _encode(STOPS[rng.integers(len(STOPS))])
    tail = np.concatenate([_compose(rng, 15, gc), _encode("AATAAA"), _compose(rng, 15, gc)])
    unit = np.concatenate([promoter, utr, _encode("ATG"), body, stop, tail])
    begin = _PROMOTER_LENGTH + _UTR_LENGTH
    return unit, slice(begin, begin + 3 * (number + 2))


def _plant(
    rng: np.random.Generator,
    world: _World,
    bases: NDArray[np.uint8],
    start: int,
    end: int,
    sites: int,
) -> None:
    """Write `sites` draws from the motifs between `start` and `end`, on either strand."""
    import numpy as np

    end = min(end, len(bases))
    for _ in range(sites):
        motif = world.motifs[rng.integers(MOTIFS)]
        cumulative = np.cumsum(motif, axis=1)
        drawn = rng.random(len(motif))[:, None] * cumulative[:, -1:]
        site = (cumulative <= drawn).sum(axis=1).astype(np.uint8)
        if rng.random() < 0.5:
            site = 3 - site[::-1]
        if end - start > len(site):
            at = start + int(rng.integers(end - start - len(site)))
            bases[at : at + len(site)] = site


def _compose(rng: np.random.Generator, length: int, gc: float) -> NDArray[np.uint8]:
    """Independent bases at one GC level, CpG and all."""
    import numpy as np

    strong, second = rng.random(length) < gc, rng.random(length) < 0.5
    return np.where(strong, np.where(second, 1, 2), np.where(second, 0, 3)).astype(np.uint8)


def _encode(sequence: str) -> NDArray[np.uint8]:
    import numpy as np

    table = np.zeros(256, dtype=np.uint8)
    table[list(BASES.encode())] = np.arange(4)
    return table[np.frombuffer(sequence.encode(), dtype=np.uint8)]


def _decode(bases: NDArray[np.uint8]) -> str:
    import numpy as np

    return bytes(np.frombuffer(BASES.encode(), dtype=np.uint8)[bases]).decode()
