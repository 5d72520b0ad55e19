"""What lies beside a checkpoint: the configuration of its training, and the small files of the Hugging Face one it came from."""

from etils import epath

from lmirl_jax import checkpoints, configuration, configuration_pretrained, interop
from lmirl_jax.types import UserError

# The folder in MODEL_DIR for the small files of the Hugging Face checkpoint from which training started.
PRETRAINED = "pretrained"


def config_of(checkpoint: epath.Path) -> str | configuration.GinText:
    """The configuration that a checkpoint was trained with: the path of its run's config.gin.

    A checkpoint of another library has none; the text of one is made from its sizes and its tokenizer.
    """
    run = checkpoints.run_folder(checkpoint)
    if run is None:
        pretrained = interop.open_pretrained(checkpoint)
        return configuration_pretrained.whole_configuration(pretrained, own_vocabulary(checkpoint))
    config = run / "config.gin"
    if not config.is_file():
        raise UserError(
            f"no {config}: a run writes it beside its checkpoints/; give the run's settings with --gin_file and "
            f"copy them there"
        )
    return str(config)


def inherited_settings(checkpoint: epath.Path) -> tuple[str, str] | None:
    """The settings that a run which starts from a checkpoint may inherit: where they come from, and a gin text.

    Returns:
        None where the run of the checkpoint has no config.gin.
    """
    run = checkpoints.run_folder(checkpoint)
    if run is None:
        text = configuration_pretrained.settings(
            interop.open_pretrained(checkpoint), own_vocabulary(checkpoint)
        )
        return str(checkpoint), text.text
    config = run / "config.gin"
    return (str(config), config.read_text(encoding="utf-8")) if config.is_file() else None


def own_vocabulary(checkpoint: epath.Path) -> str | None:
    """The folder of the tokenizer that lies beside a checkpoint of Hugging Face; None where there is none."""
    from lmirl_jax.data import has_tokenizer

    if checkpoints.kind_of(checkpoint) != "hf":
        return None
    # A folder of PEFT may have a tokenizer; else it is its base's.
    folders = checkpoint, interop.config_folder(checkpoint)
    return next((str(folder) for folder in folders if has_tokenizer(str(folder))), None)


def pretrained_files(checkpoint: epath.Path) -> epath.Path | None:
    """The folder with the small files of Hugging Face, such as config.json, that a checkpoint came with; None for none."""
    run = checkpoints.run_folder(checkpoint)
    folder = interop.config_folder(checkpoint) if run is None else run / PRETRAINED
    return folder if (folder / "config.json").is_file() else None


def copy_pretrained_files(checkpoint: epath.Path, model_dir: epath.Path) -> epath.Path | None:
    """Copies these files into a run's MODEL_DIR, which is then whole without the checkpoint; returns the new folder."""
    source = pretrained_files(checkpoint)
    if source is None:
        return None
    target = model_dir / PRETRAINED
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix in (".json", ".model", ".txt", ".jinja") and not file.name.endswith(".index.json"):
            file.copy(target / file.name, overwrite=True)
    return target
