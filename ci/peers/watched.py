"""Run by a library's own Python, with this project beside it: trains watched SAEs of the library.

python -m peers.watched LIBRARY

Activations have a mean of 40 times their spread. Printed is a line of JSON: a row per SAE of what
was trained, the verdict, gamma, the numbers at birth and at the end, what the library's logger got,
and whether the dead at the end are those that the library's own encoder leaves silent.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

import bench

WIDTH, N, K, BATCH, STEPS, EVERY = 32, 256, 16, 128, 40, 10
GAMMA = 40.0
SAMPLE = 3000


def activations(tokens: int, seed: int) -> Tensor:
    """Gaussian tokens [tokens, width] about a mean of GAMMA times their spread."""
    mean = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    x = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(seed))
    return x + GAMMA * WIDTH**0.5 * mean / mean.norm()


def batches() -> Iterator[Tensor]:
    """Without end."""
    seed = 1
    while True:
        yield activations(BATCH, seed)
        seed += 1


def recorded() -> list[dict[str, Any]]:
    """What the next run of wandb is given, which keeps it as well."""
    import wandb

    init, logged = wandb.init, list[dict[str, Any]]()

    def recording(*args: Any, **kwargs: Any) -> Any:
        wandb.init = init
        run = init(*args, **kwargs)
        log = wandb.log

        def keeping(data: dict[str, Any], **more: Any) -> None:
            logged.append(data)
            log(data, **more)

        wandb.log = keeping
        return run

    wandb.init = recording
    return logged


Row = list[object]


def row(what: str, watch: Any, codes: Tensor, logged: list[dict[str, Any]]) -> Row:
    """codes: of the library's own encoder after training, on the sample [SAMPLE, n]."""
    [sae] = watch.saes
    first, last = sae.history[0], sae.history[-1]
    silent = float((~(codes > 0).any(0)).double().mean())
    found = last["dead_relu"] + last["dead_topk"]
    got = sum("gammabench/dead_relu" in each for each in logged)
    dead = f"{first['dead_relu'] + first['dead_topk']:.2f} -> {found:.2f}"
    action, gamma = sae.diagnosis.verdict.action, sae.diagnosis.statistics.gamma_raw
    progress = last.get("bias_progress")
    bias = "-" if progress is None else f"{progress:.3f}"
    durable = f"{last['durable']:.2f}" if "durable" in last else "-"
    holds = got > 0 and abs(found - silent) < 1e-9 and len(sae.history) == 1 + STEPS // EVERY
    return [what, action, f"{gamma:.3g}", dead, durable, bias, got, holds]


def saelens() -> Iterator[Row]:
    import wandb
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    for norm, center in (("none", False), ("none", True), ("covariance_whitening", False)):
        torch.manual_seed(0)
        size = {"d_in": WIDTH, "d_sae": N, "k": K, "normalize_activations": norm}
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**size, device="cpu", dtype="float32"))
        config = SAETrainerConfig(
            total_training_samples=STEPS * BATCH,
            train_batch_size_samples=BATCH,
            lr=1e-3,
            lr_end=1e-4,
            device="cpu",
            autocast=False,
            dead_feature_window=1000,
            n_batches_for_norm_estimate=20,
            logger=LoggingConfig(log_to_wandb=True, wandb_log_frequency=5),
        )
        logged = recorded()
        wandb.init(dir=tempfile.mkdtemp())
        trainer = SAETrainer(cfg=config, sae=sae, data_provider=batches())
        x = activations(SAMPLE, 10**6)
        watch = bench.watch(trainer, x, center=center, every=EVERY)
        # Whitening is folded into the weights at the end, which changes no code.
        trainer.fit()
        wandb.finish()
        codes = sae.encode(x)
        yield row(f"topk {norm}{' center' if center else ''}", watch, codes, logged)


def sparsify() -> Iterator[Row]:
    import wandb
    from sparsify.config import SparseCoderConfig, TrainConfig
    from sparsify.trainer import Trainer

    from peers.with_sparsify import SEQUENCE, Sequences, Stub

    stub = Stub(activations(STEPS * BATCH, 1))
    config = TrainConfig(
        SparseCoderConfig(num_latents=N, k=K),
        batch_size=BATCH // SEQUENCE,
        optimizer="adam",
        save_every=10**9,
        wandb_log_frequency=5,
        hookpoints=["layers.0"],
    )
    torch.manual_seed(0)
    trainer = Trainer(config, Sequences(STEPS * BATCH, STEPS * BATCH // SEQUENCE), stub)
    trainer.save = lambda: None
    logged = recorded()
    watch = bench.watch(trainer, every=EVERY, tokens=SAMPLE)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        trainer.fit()
        wandb.finish()
        os.chdir("/")
    [sae] = trainer.saes.values()
    # The sample is the first tokens of the stub's data, in order.
    found = sae.encode(activations(STEPS * BATCH, 1)[:SAMPLE])
    codes = torch.zeros(SAMPLE, N).scatter_(1, found.top_indices.long(), found.top_acts)
    yield row("topk", watch, codes, logged)


def kept(make: Callable[..., Any], made: list[Any]) -> Callable[..., Any]:
    """`make`, with what it makes put into `made`."""

    def making(**config: Any) -> Any:
        made.append(make(**config))
        return made[-1]

    return making


def dictionary_learning() -> Iterator[Row]:
    from dictionary_learning.trainers import StandardTrainer, TopKTrainer
    from dictionary_learning.training import trainSAE

    plain = {"activation_dim": WIDTH, "dict_size": N, "layer": 0, "lm_name": "made"}
    plain |= {"steps": STEPS, "seed": 0, "device": "cpu"}
    x = activations(SAMPLE, 10**6)
    topk = {"trainer": TopKTrainer, "k": K, "warmup_steps": 1}
    standard = {"trainer": StandardTrainer, "sparsity_warmup_steps": 1, "warmup_steps": 1}
    kinds = [
        ("topk", topk, False),
        ("standard", standard, False),
        ("standard center", standard, True),
    ]
    for what, more, center in kinds:
        config: dict[str, Any] = plain | more
        made: list[Any] = []
        watch = bench.watch(config, x, center=center, every=EVERY)
        config["trainer"] = kept(config["trainer"], made)
        trainSAE(batches(), [config], steps=STEPS, verbose=True, log_steps=5, device="cpu")
        [trainer] = made
        with torch.no_grad():
            codes = trainer.ae.encode(x)
        yield row(what, watch, codes, [trainer.get_logging_parameters()])


def saev() -> Iterator[Row]:
    # saev reads pictures with it, and here nothing is read; see `make_peer`.
    sys.modules["torchvision"] = sys.modules["torchvision.datasets"] = MagicMock()
    import saev.config
    import saev.training

    # `train` reads shards of a vision model from a disk; this is its loop on tensors in memory.
    x = activations(SAMPLE, 10**6)
    for center in (False, True):
        torch.manual_seed(0)
        watch = bench.watch(saev.training, x, center=center, every=EVERY)
        config = saev.config.SparseAutoencoder(d_vit=WIDTH, exp_factor=N // WIDTH)
        [sae], groups = saev.training.make_saes([config])
        os.environ["WANDB_DIR"] = tempfile.mkdtemp()
        train = saev.config.Train(wandb_project="watched")
        run = saev.training.ParallelWandbRun("watched", [train], "offline", [])
        logged: list[dict[str, Any]] = []
        run.live_run.log = lambda data, logged=logged, **more: logged.append(data)
        groups[0]["lr"] = 1e-3
        optimizer = torch.optim.Adam(groups)
        for step, batch in zip(range(STEPS), batches(), strict=False):
            sae.normalize_w_dec()
            _, _, loss = sae(batch)
            run.log([{"losses/mse": loss.mse.item()}], step=step)
            # A census is of the weights that its step began with.
            before = {name: t.clone() for name, t in sae.state_dict().items()}
            loss.loss.backward()
            sae.remove_parallel_grads()
            optimizer.step()
            optimizer.zero_grad()
        run.live_run.finish()
        sae.load_state_dict(before)
        with torch.no_grad():
            codes = sae(x)[1]
        yield row(f"relu{' center' if center else ''}", watch, codes, logged)


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    makers = {
        "saelens": saelens,
        "sparsify": sparsify,
        "dictionary_learning": dictionary_learning,
        "saev": saev,
    }
    print(json.dumps(list(makers[sys.argv[1]]())))


if __name__ == "__main__":
    main()
