"""Why a cell has no result, as its record says it."""

from __future__ import annotations

from typing import Self, cast

from pydantic import BaseModel, ConfigDict

import zoo.errors
from zoo.errors import BenchError, MeasuredElsewhere, ModelError, Unavailable


class Failure(BaseModel):
    """Why a cell has no result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    message: str
    remedy: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The failure that an exception means; an unexpected one keeps its type's name."""
        if isinstance(error, BenchError):
            return cls(kind=type(error).__name__, message=error.message, remedy=error.remedy)
        text = " ".join(str(error).split()) or "no message"
        return cls(kind=type(error).__name__, message=text[:2000], remedy="")

    def error(self) -> ModelError:
        """The exception again."""
        return cast(ModelError, getattr(zoo.errors, self.kind)(self.message, self.remedy))

    @property
    def unavailable(self) -> bool:
        """Whether something was not there: nothing was measured, and no record is kept of it."""
        kind = getattr(zoo.errors, self.kind, object)
        return isinstance(kind, type) and issubclass(kind, Unavailable)

    @property
    def is_elsewhere(self) -> bool:
        """Whether nothing is wrong: another run is at work on the cell."""
        return self.kind == MeasuredElsewhere.__name__

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message
