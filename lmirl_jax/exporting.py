"""Writes a policy as a checkpoint of Hugging Face, of T5X, or of a run of ours: whole, or not at all."""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from etils import epath
from jax.experimental import multihost_utils

from lmirl_jax import checkpoints, configuration_pretrained, files, interop, run_files, runs, sharding
from lmirl_jax.interop import hub
from lmirl_jax.models import HeadsConfig
from lmirl_jax.models.abstract import build
from lmirl_jax.models.trainable import HEADS
from lmirl_jax.training.state import TrainState
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

Format = Literal["hf", "t5x", "orbax", "peft"]
# What the name of a folder that is not yet whole ends with.
TEMPORARY = ".tmp"
Dtype = Literal["float32", "bfloat16", "float16"]


def export(
    policy: runs.Policy, path: str, form: Format, dtype: Dtype | None = None, name: str = "OUTPUT_PATH"
) -> epath.Path:
    """Writes a policy in another format.

    Parameters that come from a checkpoint of another library, and are of its type, go out bit for bit.

    Args:
        policy: the policy, from `runs.load`.
        path: the folder to make.
        form: 'hf' for a folder that transformers loads, 't5x' for T5X's first format (T5 1.0, T5 1.1 and mT5), 'orbax' for a
            MODEL_DIR of ours, 'peft' for the adapters alone of a run that trained them, as PEFT loads them. All others write
            the model that the adapters make of their base.
        dtype: the type of the weights; None for that of the checkpoint. A MODEL_DIR always has float32.
        name: the setting that gives the path, for errors.

    Returns:
        The folder.

    Raises:
        UserError: something is there already, the family has no such format, or the disk is full.
    """
    write = {"hf": _write_hf, "t5x": _write_t5x, "orbax": _write_run, "peft": _write_peft}[form]
    if form != "orbax":
        policy = _without_heads(policy)
    types = _types(policy, dtype)
    with _new_folder(path, name) as folder:
        write(policy, folder, types)
    return files.absolute_path(path)


def _without_heads(policy: runs.Policy) -> runs.Policy:
    """The policy alone, because other libraries have no place for heads beside it."""
    if not isinstance(policy.model, HeadsConfig):
        return policy
    _log.warning("the heads of %s are left out: the policy is written without a guide", policy)
    params = {name: part for name, part in policy.params.items() if name != HEADS}
    base = policy.model.base
    return dataclasses.replace(policy, model=base, graph=build(base)[0], params=params)


def _types(policy: runs.Policy, dtype: Dtype | None) -> Callable[[str], str]:
    """Gives the type in which each of our parameters is written, by its path."""
    if dtype is not None:
        return lambda path: dtype
    if checkpoints.kind_of(policy.checkpoint) == "lmirl":
        return lambda path: "float32"
    pretrained = interop.open_pretrained(policy.checkpoint)
    stored, shapes = pretrained.source.tensors(), pretrained.parameter_shapes()
    types = {
        entry.ours: interop.widest(stored[name].dtype for name in entry.names(shapes[entry.ours]))
        for entry in pretrained.entries
    }
    return lambda path: types[path]


def _write_hf(policy: runs.Policy, folder: pathlib.Path, types: Callable[[str], str]) -> None:
    given = run_files.pretrained_files(policy.checkpoint)
    template = None if given is None else pathlib.Path(given)
    model_type = interop.model_type_of(policy.model, template)
    vocabulary = policy.task.output_vocabulary
    if jax.process_index() == 0:
        _write_tokenizer(policy, folder)
        special = vocabulary.eos_ids, vocabulary.start_id
        interop.write_config(folder, policy.model, model_type, types("token_embedder"), template, *special)
    params = interop.flatten(policy.params)
    interop.write_weights(folder, interop.hf_table(policy.model, model_type), params, types)


def _write_tokenizer(policy: runs.Policy, folder: pathlib.Path) -> bool:
    """Writes a policy's tokenizer; returns whether it has one that can be written, and says so in the log where it has none."""
    from lmirl_jax.data import MissingVocabulary, write_tokenizer

    vocabulary = policy.task.output_vocabulary
    if isinstance(vocabulary, MissingVocabulary):
        _log.warning("%s came without a tokenizer, so none is written; VOCABULARY_PATH gives it one", policy)
        return False
    try:
        write_tokenizer(vocabulary, folder)
    except UserError as error:
        _log.warning("no tokenizer is written: %s", error)
        return False
    return True


def _write_peft(policy: runs.Policy, folder: pathlib.Path, types: Callable[[str], str]) -> None:
    record = checkpoints.read_record(policy.checkpoint)
    if record is None:
        raise UserError(
            f"FORMAT='peft': {policy} holds a whole model, no adapters: write it with FORMAT='hf'"
        )
    given = run_files.pretrained_files(policy.checkpoint)
    model_type = interop.model_type_of(policy.model, None if given is None else pathlib.Path(given))
    found = checkpoints.base_of(record, policy.checkpoint)
    if checkpoints.kind_of(found) != "hf" or interop.config_folder(found) != found:
        _log.warning(
            "the base of these adapters is %s, which transformers does not load: write it with FORMAT='hf' and name that folder "
            "as base_model_name_or_path in adapter_config.json",
            record.base,
        )
    base, revision = hub.parts(record.base)
    config = interop.adapter_config(
        rank=record.rank,
        alpha=record.alpha,
        base=base,
        revision=revision,
        is_encoder_decoder="encoder" in policy.params,
    )
    shardings = jax.tree.map(lambda x: x.sharding, policy.params)
    adapters = checkpoints.load_adapters(policy.checkpoint, policy.params, shardings)
    table = interop.hf_table(policy.model, model_type)
    interop.write_peft(folder, table, interop.flatten(adapters), types, config)


def _write_t5x(policy: runs.Policy, folder: pathlib.Path, types: Callable[[str], str]) -> None:
    step = checkpoints.step_of(policy.checkpoint)
    interop.write_t5x(folder, interop.t5x_table(policy.model), interop.flatten(policy.params), types, step)


def _write_run(policy: runs.Policy, folder: pathlib.Path, types: Callable[[str], str]) -> None:
    """Writes a MODEL_DIR with one checkpoint, which holds parameters and no state of an optimizer."""
    step = checkpoints.step_of(policy.checkpoint)
    # Every process has a part of each array that is saved.
    whole = sharding.replicated_sharding(policy.mesh)
    number = jax.jit(lambda: jnp.asarray(step, jnp.int32), out_shardings=whole)()
    state = TrainState(number, policy.params, {})
    config = checkpoints.CheckpointConfig(asynchronous=False)
    with contextlib.closing(checkpoints.Checkpoints(epath.Path(folder), config)) as saved:
        saved.save(step, state, {})
    if jax.process_index() != 0:
        return
    run_files.copy_pretrained_files(policy.checkpoint, epath.Path(folder))
    run = checkpoints.run_folder(policy.checkpoint)
    if run is not None:
        text = (run / "config.gin").read_text(encoding="utf-8")
    else:
        # The folder gets its own name only when it is whole.
        final = folder.parent / folder.name.removeprefix(".").removesuffix(TEMPORARY)
        vocabulary = None
        if _write_tokenizer(policy, folder / run_files.PRETRAINED):
            vocabulary = str(final / run_files.PRETRAINED)
        pretrained = interop.open_pretrained(policy.checkpoint)
        text = configuration_pretrained.whole_configuration(pretrained, vocabulary, str(final)).text
    (folder / "config.gin").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _new_folder(path: str, name: str) -> Iterator[pathlib.Path]:
    """A folder under a temporary name, which gets its own when the block ends without an exception."""
    target = files.absolute_path(path)
    if "://" in str(target):
        raise UserError(f"{name}={path!r} is in a bucket: write to a disk and copy the folder")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(
            f"{name}={path!r} exists and is not empty: name a new folder, so that nothing is lost"
        )
    folder = pathlib.Path(target).parent / f".{target.name}{TEMPORARY}"
    made = [parent for parent in folder.parents if not parent.exists()]
    if jax.process_index() == 0:
        files.prepare_directory(str(folder.parent), f"the folder of {name}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    multihost_utils.sync_global_devices("export begins")
    try:
        yield folder
        multihost_utils.sync_global_devices("export ends")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise
    if jax.process_index() == 0:
        if target.exists():
            target.rmdir()
        folder.rename(target)
