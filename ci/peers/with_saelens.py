"""SAELens: its `SAETrainer.fit()` on activations in memory."""

from __future__ import annotations

import time

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from peers.serving import Endless, Job, Timed, serve, with_matmul

# Number of training samples that is never reached, so that no schedule ends.
_MANY = 10**9


def runner(job: Job, *, autocast: bool = False, **options: bool) -> Timed:
    """Steps of a trainer with SAELens' defaults but for `options` of its TopK SAE."""
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=job.d,
            d_sae=job.n,
            k=job.k,
            decoder_init_norm=1.0,
            device=job.device,
            dtype="float32",
            **options,
        )
    )
    config = SAETrainerConfig(
        total_training_samples=_MANY,
        train_batch_size_samples=job.batch,
        lr=1e-4,
        lr_end=1e-5,
        device=job.device,
        autocast=autocast,
        dead_feature_window=1000,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=Endless(job))

    def timed(steps: int) -> float:
        trainer.cfg.total_training_samples = trainer.n_training_samples + steps * job.batch
        start = time.perf_counter()
        trainer.fit()
        return time.perf_counter() - start

    return timed


def build(job: Job) -> dict[str, Timed]:
    torch.manual_seed(0)
    default = runner(job)
    # Its sparse activations fail in backward together with its default rescaling.
    sparse = runner(job, use_sparse_activations=True, rescale_acts_by_decoder_norm=False)
    return {
        "default": default,
        "sparse": sparse,
        "autocast": runner(job, autocast=True),
        "default, our matmul": with_matmul(job.matmul, default),
        "sparse, our matmul": with_matmul(job.matmul, sparse),
    }


if __name__ == "__main__":
    serve(build)
