"""dictionary_learning: `TopKTrainer.update`, the body of its `trainSAE` loop.

On a CPU that loop has no autocast either.
"""

from __future__ import annotations

import time

from dictionary_learning.trainers.top_k import TopKTrainer

from peers.serving import Endless, Job, Timed, serve, with_matmul


def runner(job: Job) -> Timed:
    """Steps of a trainer with the library's defaults."""
    trainer = TopKTrainer(
        steps=10**9,
        activation_dim=job.d,
        dict_size=job.n,
        k=job.k,
        layer=0,
        lm_name="made",
        seed=0,
        device=job.device,
    )
    batches = Endless(job)
    # Step 0 finds a geometric median.
    trainer.update(0, next(batches))
    number = 1

    def timed(steps: int) -> float:
        nonlocal number
        start = time.perf_counter()
        for _ in range(steps):
            trainer.update(number, next(batches))
            number += 1
        return time.perf_counter() - start

    return timed


def build(job: Job) -> dict[str, Timed]:
    default = runner(job)
    return {"default": default, "default, our matmul": with_matmul(job.matmul, default)}


if __name__ == "__main__":
    serve(build)
