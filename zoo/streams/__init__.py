"""Corpora larger than memory: files anywhere, read a chunk at a time, in an order of their own.

    storage   where files are: this machine, `s3://`, `https://`, the hub (fsspec)
    chunks    how a file is cut into chunks of examples, from which reading can begin
    readers   the examples of a chunk, by the rules of `zoo.texts`, `zoo.sequences`, `zoo.pictures`
    corpus    the order: chunks are shuffled, then examples; resumed anywhere

Why pyarrow and fsspec, and not `datasets` in streaming mode. Both were tried on one core with 1 GiB
of jsonl, 488,287 examples. Both read it in 41 s; `datasets` 5.2 took up to 266 MB, this 183 MB.
To go on at example 400,000, `datasets` reads its file again from the beginning, 881 MB in 15 s;
this reads the draw that holds it and the next, 72 MB in 1.8 s. `datasets` shuffles by a buffer that
a resumed stream begins empty; here the order is a permutation, the same wherever it is begun. It
has no FASTA. It brings 15 packages; pyarrow is what `.parquet` needs anyway, and fsspec comes with
torch and the hub's client.

S3 is pyarrow's too, in fsspec's wrapper, and not `s3fs`: it needs no further package, where s3fs
brings aiobotocore, which pins botocore to a few releases, and aiohttp.
"""

from zoo.streams.corpus import StreamedCorpus, is_read_by_streams, stored_corpus
from zoo.streams.storage import StoredFile, is_url, list_files

__all__ = [
    "StoredFile",
    "StreamedCorpus",
    "is_read_by_streams",
    "is_url",
    "list_files",
    "stored_corpus",
]
