"""What somebody writes on a command line or in a YAML file: names, addresses, settings, cards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.made import HUB_CARD

# Names and addresses; whether one is a file, an id or a pattern is the command's to find out.
NAMES = [
    *("", " ", ".", "..", "../../etc", "/etc/passwd", "/dev/zero", "/proc/self/mem", "~"),
    *("~nouser-x/y", "a b", "a\nb", "a\tb", "a\0b"[:1], "a\u202eb", "\x1b[31mred", "-", "--", "@"),
    *("a@b c", "a@../b", "a//b", "a/b/c", "a" * 300, "a" * 5000, "x/" * 3000, "%00", "${HOME}"),
    *("$(id)", "`id`", ";id", "[", "[a", "[!]", "{a,b}", "\\", "file:///etc", "http:" + "//x/y"),
    *("hub:", "hub:a", "hub:../..", "hub:a b/c", "hub:a/b@", "hub:a/b@../c", "hub:a/b/../../c"),
    *(":", "a:", ":a", "nope:x", "dump:", "dump:nowhere", "dump:/dev/zero", "timm:", "timm:../x"),
    *("hf-causal:", "hf-causal:a b", "hf-causal:../..", "hf-causal:" + "a" * 5000, "hf-masked:@"),
    *("hf-causal:a@b@c", "hf-causal:a\nb", "hf-causal:/etc/passwd"),
    *("\udcff", "\u212a", "tiny-GPT2", "tiny_gpt2", "CON", "NUL", "1", "1e400", "null"),
]

SETTINGS = [
    *("", "=", "n", "n=", "=1", "n==1", "n=1=2", "nope=1", "N=1", "n=0", "n=-1", "n=1.5", "n=1e3"),
    *("n=1e400", "n=nan", "n=.inf", "n=" + "9" * 5000, "n=10000000000000", "n=true", "n=null"),
    *("n=[1]", "n={a: 1}", "n=" + "[" * 5000, "n=2026-13-45", "n=0x_", "n=0b_", "n=1_000", "n=0o7"),
    *("n=!!timestamp x", "n=!!python/object/apply:os.getcwd []", "n=&a [*a]", "n=a\nb", "n=\x07"),
    *("k=0", "k=100", "batch=0", "steps=-1", "lr=0", "lr=1e308", "lr=x", "eps=-1", "family=nope"),
    *("arms=[nope]", "arms=[]", "arms=raw", "arms=[raw, raw]", "arms=[[raw]]", "seeds=[-1]"),
    *("seeds=[]", "seeds=[0, 0]", "seeds=0", "seeds=[1.5]", "layers=[9]", "name=x", "dtype=float3"),
    *("checkpoints=99999999", "buffer=-1", "forward_tokens=0", "path=dense;sparse", "n=\u0663"),
]

# Keys of the command line that take numbers or words.
OPTIONS = [
    *(("--layer", value) for value in ("-1", "99", "x", "9" * 30, "1.5", "")),
    *(("--seed", value) for value in ("-1", "x", "9" * 30, "9" * 5000)),
    *(("--arm", value) for value in ("", "nope", "raw+nope", "raw " * 900, "a\nb", "+" * 5000)),
    *(("--limit", value) for value in ("0", "-1", "x", "1" * 5000)),
    *(("--suite", value) for value in ("", "nope", "../x", "a" * 5000)),
    *(("--domain", value) for value in ("", "nope", "Language")),
    *(("--protocol", value) for value in ("", "nope", "/dev/zero", "nowhere.yaml", "a" * 5000)),
    *(("--cards", value) for value in ("nowhere", "/dev/zero", "/etc/passwd", "a" * 5000)),
    *(("--weights", value) for value in ("nowhere", "/dev/zero", "/etc/passwd", "a" * 5000)),
    *(("--output", value) for value in ("/dev/zero", "/proc/x", "/etc/passwd", "a" * 5000)),
    *(("--corpus", value) for value in ("", ".", "nowhere", "a" * 5000, "~nouser-x/y")),
]

TAGS = {
    "timestamp": "a: !!timestamp x",
    "binary": "a: !!binary YQ==",
    "object": "a: !!python/object/apply:os.getcwd []",
    "recursive": "a: &x [*x]",
    "recursive mapping": "&x\na: *x",
    "aliases": "a0: &a0 [x, x]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 40)),
    "merge": "a: &a {b: 1}\nc: {<<: *a}",
    "digits": "a: " + "9" * 5000,
    "10**400": "a: 1" + "0" * 400,
    "infinite": "a: .inf",
    "deep flow": "a: " + "[" * 50_000,
    "deep braces": "{a: " * 50_000,
    "deep block": "\n".join(" " * i + "a:" for i in range(1000)),
    "list for a key": "? [1]\n: 2",
    "twice": "a: 1\na: 2",
    "documents": "a: 1\n---\na: 2",
    "long": "a: " + "x" * (2 << 20),
    "list": "- 1\n- 2",
    "word": "hello",
    "number": "1",
    "nothing": "",
    "comment": "# nothing",
    "tab": "a:\n\t- 1",
    "control": "a: \x07",
    "directive": "%YAML 9.9\n---\na: 1",
    "number for a key": "1: 2",
    "null for a key": "~: 2",
    "html": "<!DOCTYPE html>",
    "unclosed": "a: 'b",
}

VALUES: list[Any] = [None, True, -1, 0, 1.5, 10**12, 10**20, 1e300, "", "x", "../x", "x" * 5000]
VALUES += [[], {}, ["x"], [None], {"a": "b"}, "a\nb", "{i}" * 2000, "\u202e", "/dev/zero"]


def yamls() -> Iterator[tuple[str, bytes]]:
    """Files that are no card, suite, corpus or protocol, and many that nearly are one."""
    for name, text in TAGS.items():
        yield name, text.encode()
    yield "not utf-8", b"id: \xff\xfe"
    yield "utf-16", "id: x".encode("utf-16")
    yield "null bytes", b"id: \0"
    for where, value in spoiled(HUB_CARD):
        yield f"card, {where}", _written(value)
    corpus = {"id": "c", "summary": "", "kind": "text", "source": "file", "path": "x.txt"}
    for where, value in spoiled(corpus):
        yield f"corpus, {where}", _written(value)
    suite = {"id": "s", "summary": "", "models": ["gpt2"], "layers": {"gpt2": "0-2"}}
    for where, value in spoiled(suite):
        yield f"suite, {where}", _written(value)
    protocol = {"name": "p", "n": 64, "k": 4, "N": 512, "steps": 12, "batch": 64, "lr": 1e-3}
    for where, value in spoiled(protocol):
        yield f"protocol, {where}", _written(value)


def _written(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def spoiled(document: dict[str, Any], every: int = 3) -> Iterator[tuple[str, dict[str, Any]]]:
    """The document with a part replaced by each of some values; of all the pairs every so many."""
    count = 0
    for path in _paths(document):
        for value in VALUES:
            count += 1
            if count % every:
                continue
            copy = json.loads(json.dumps(document))
            inner = copy
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            yield f"{'.'.join(path)}: {str(value)[:20]}", copy


def _paths(document: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))
