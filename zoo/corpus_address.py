"""A corpus that is elsewhere, by its address. No torch.

hub:OWNER/NAME[@REVISION][:PATH]   a dataset of the hub at a commit, branch or tag [main], which is
                                   resolved to its commit. PATH is a file, a glob (`*` stands for
                                   folders too), or a folder, as configurations are [all files of
                                   the kind].
https://..., http://...            one file of a web server
s3://BUCKET/PATH                   an object, or those below a prefix

What is small is read as a whole, what is large is streamed; `zoo.corpora.file_corpus` says which
formats there are. The commit identifies a dataset of the hub, `zoo.streams.storage.digest` what is
elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from zoo.cards import HUB_ID, CorpusCard, CorpusKind
from zoo.corpora import hub_corpus, repository_of
from zoo.corpus import Corpus
from zoo.errors import UsageError
from zoo.streams import is_url, stored_corpus
from zoo.streams.storage import shown
from zoo.texts import CORPUS_SUFFIXES, suffix_of

_SCHEMES = ("http", "https", "s3")

_HUB = re.compile(r"(?P<hub>[^@:]+)(@(?P<revision>[^:]+))?(:(?P<path>.+))?")

_FORM = "It is hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME:PATH."


@dataclass(frozen=True)
class HubAddress:
    """A dataset of the hub; `revision` and `path` as they were written."""

    hub: str
    revision: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"hub:{self.hub}{f':{self.path}' if self.path else ''}"

    @property
    def glob(self) -> str:
        """Which files are meant."""
        if self.path is None:
            return "*"
        suffixes = {suffix for kind in CORPUS_SUFFIXES.values() for suffix in kind}
        is_file = suffix_of(self.path) in {*suffixes, ".tar", ".tgz"}
        return self.path if "*" in self.path or is_file else f"{self.path.rstrip('/')}/*"

    def open(self, kind: CorpusKind, column: str | None, skip_bad: int) -> Corpus:
        """The corpus, at the commit that the revision is at now.

        Raises:
            ModelUnavailable: the hub does not give it, or cannot be reached.
            BadCorpus: it holds nothing of this kind.
        """
        from dataclasses import replace

        from zoo import hub

        facts: dict[str, Any] = {"summary": "", "kind": kind, "source": "hub", "hub": self.hub}
        facts |= {"id": "x", "revision": "0" * 40, "path": self.glob, "column": column}
        card = CorpusCard.model_validate(facts).model_copy(update={"id": str(self)})
        asked = replace(
            repository_of(card), revision=self.revision, keys=("--corpus", "the revision")
        )
        return hub_corpus(card.model_copy(update={"revision": hub.resolve(asked)}), skip_bad)


@dataclass(frozen=True)
class UrlAddress:
    """What `zoo.streams.storage` opens."""

    url: str

    def __str__(self) -> str:
        return shown(self.url)

    def open(self, kind: CorpusKind, column: str | None, skip_bad: int) -> Corpus:
        """The corpus. Raises as `zoo.streams.stored_corpus`."""
        return stored_corpus(self.url, kind, str(self), column=column, skip_bad=skip_bad)


Address = HubAddress | UrlAddress


def parse_address(text: str) -> Address | None:
    """The address that a text is; None where it is none.

    Raises:
        UsageError: it begins as one, and is none.
    """
    if text.startswith("hub:"):
        found = _HUB.fullmatch(text.removeprefix("hub:"))
        if found is None or not re.fullmatch(HUB_ID, found["hub"]):
            raise UsageError(f"--corpus: {text!r} names no dataset of the hub", _FORM)
        return HubAddress(found["hub"], found["revision"], found["path"])
    if not is_url(text):
        return None
    if urlsplit(text).scheme not in _SCHEMES:
        raise UsageError(
            f"--corpus: {text} cannot be opened",
            "An address begins with hub:, https:// or s3://; a file of this machine is a path.",
        )
    return UrlAddress(text)
