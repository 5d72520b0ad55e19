"""Apache Beam makes the shards of a split, for data that outgrow one machine.

One worker reads the rows and the others tokenise them. All of them, and the process that starts them, see the files and the
folder of the cache under the same paths. What they write is what one machine would write.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence

from lmirl_jax.data.file_task import FileTask
from lmirl_jax.data.jsonl import READ
from lmirl_jax.data.preparation import Made, MakesShards, kept_examples
from lmirl_jax.data.shards import Part, ShardWriter, parts
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError

# What the reader leaves when it is at the end, and the errors of rows, by the number of their part.
READ_FILE, ERRORS = "read.json", "*.error"


def beam_shards(options: Sequence[str]) -> MakesShards:
    """Has a Beam pipeline make the shards; for `tokenized_records`.

    Args:
        options: the options of the pipeline, such as '--runner=FlinkRunner'; see
            https://beam.apache.org/documentation/runners/capability-matrix.

    Raises:
        UserError: Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError(
            "apache_beam is not installed: install it in an environment of its own, with this library (docs/data-pipeline.md)"
        ) from None

    def make(writer: ShardWriter, split: str) -> Made:
        if not isinstance(writer.reader, FileTask):
            raise UserError(
                f"{writer.name}: Beam prepares files; for a SeqIO task run seqio_cache_tasks, and name its folder with "
                "--seqio_additional_cache_dirs"
            )
        for file in [writer.folder / READ_FILE, *writer.folder.glob(ERRORS)]:
            file.unlink(missing_ok=True)
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            rows = pipeline | "Split" >> beam.Create([split])
            missing = rows | "Read" >> beam.FlatMap(_missing_parts, writer)
            # Without it, a runner would fuse reading and writing into one step of one worker.
            missing | "Spread" >> beam.Reshuffle() | "Write" >> beam.Map(_write, writer)
        for file in sorted(writer.folder.glob(ERRORS))[:1]:
            raise UserError(file.read_text())
        return Made(**json.loads((writer.folder / READ_FILE).read_text()))

    return make


def _missing_parts(split: str, writer: ShardWriter) -> Iterator[Part]:
    """The parts whose shards are not there; notes the number of all."""
    unread, count = UnreadKeys(READ), 0
    try:
        for part in parts(writer.reader.rows(split, unread)):
            count += 1
            if kept_examples(writer, part.number) is None:
                yield part
    except UserError as error:
        _note(writer.folder, count, error)
        return
    (writer.folder / READ_FILE).write_text(json.dumps({"shards": count, "unread": unread.counts}))


def _write(part: Part, writer: ShardWriter) -> None:
    try:
        writer.write(part)
    except UserError as error:
        _note(writer.folder, part.number, error)


def _note(folder: pathlib.Path, number: int, error: UserError) -> None:
    """Leaves an error for the process that started the pipeline: a runner would wrap it, and would try again."""
    (folder / f"{number:08}.error").write_text(str(error))
