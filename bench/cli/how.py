"""How `bench run` is carried out, not what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.records.mirror import mirror_of
from bench.runner.engines import EngineName
from bench.runner.settings import Settings

# Whether what is done is measured again: all of it, or what failed.
Again = Literal["force", "failed"] | None


@dataclass(frozen=True)
class How:
    """The options that say how a run is carried out, not what is measured."""

    cache: Path | None
    device: str
    trust_remote_code: bool
    workers: int | None
    readers: int | None
    engine: EngineName
    divide_rows: bool
    budget: float | None
    save_saes: bool
    profile: bool
    checkpoint_every: float

    def settings(self, device: str, output: Path) -> Settings:
        """As the engines take them."""
        return Settings(
            device=device,
            trust_remote_code=self.trust_remote_code,
            states=output / "state",
            save_every=self.checkpoint_every,
            saes=output / "saes" if self.save_saes else None,
            cache=self.cache,
            profile=output / "profile" if self.profile else None,
            readers=self.readers,
            mirror=mirror_of(output),
        )
