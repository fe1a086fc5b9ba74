"""Records that the tests of the static page are about."""

from __future__ import annotations

from bench.records.schema import Record
from tests.records import make_grid, make_record
from zoo.errors import BadCorpus

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\u202e"
MODELS = {"tiny-a": "language", "tiny-b": "vision", "tiny-c": "language"}


def make_records() -> list[Record]:
    grid = make_grid(models=MODELS, layers=[0, 1, 2])
    return [
        *grid[:-1],
        make_record(model="tiny-d", domain="protein", outcome=BadCorpus(HOSTILE)),
        *make_grid(models={"tiny-a": "language"}, layers=[0], limit=100),
    ]
