"""Packages lmirl_jax: the library, and beside it the gin files and tasks that a checkout keeps at its root."""

import pathlib
import re
import sys

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent


def version() -> str:
    """Read as text: importing the package here would need its dependencies."""
    text = (ROOT / "lmirl_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)[1]


def long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


def packages() -> list[str]:
    """Every folder of lmirl_jax with an `__init__.py`, and the two that lie at the checkout's root.

    setuptools' own search would install `tasks` (and `gin`, which is gin-config's name) at the top level.
    """
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "lmirl_jax").rglob("__init__.py")}
    return sorted({".".join(folder.parts) for folder in folders} | {"lmirl_jax.gin", "lmirl_jax.tasks"})


def layout() -> dict:
    """Packages and where they lie; an editable installation is the checkout itself on Python's path.

    setuptools would make a module finder for it otherwise, which loses to any folder called lmirl_jax that lies where
    Python is started, such as the clone in its parent folder.
    """
    if "editable_wheel" in sys.argv:
        return {"packages": ["lmirl_jax"], "package_dir": {"": "."}}
    folders = {"lmirl_jax.gin": "gin", "lmirl_jax.tasks": "tasks"}
    data = {
        "lmirl_jax.gin": ["*.gin", "**/*.gin"],
        "lmirl_jax.integrations": ["*.gin"],
        "lmirl_jax.tasks": ["number_paths_model/**"],
    }
    return {"packages": packages(), "package_dir": folders, "package_data": data}


TEST = [
    "beartype>=0.20",
    "build>=1.2",
    "hypothesis>=6.100",
    "packaging>=24.0",
    "pyrefly>=0.30",
    "pytest>=8.3",
    "pytest-xdist>=3.8",
    "pyyaml>=6.0",
    "ruff>=0.12",
    "setuptools>=77",
    "wandb>=0.18",
]

setuptools.setup(
    name="lmirl_jax",
    version=version(),
    description="Fine-tune language models by inverse reinforcement learning, in JAX and Flax.",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    **layout(),
    install_requires=[
        "einops>=0.8",
        "etils>=1.10",
        "flax>=0.12.8",
        # Private names are used of gin.config: _CONFIG, _FILE_READERS, _IMPORTS, _LOCATION_PREFIXES, _OPERATIVE_CONFIG,
        # _REGISTRY, _SINGLETONS and _set_config_is_locked. Any release may change them.
        "gin-config>=0.5.0,<0.6",
        "grain>=0.2.18",
        "importlib_resources>=6.0",  # tensorflow-datasets needs it and does not say so.
        "jax>=0.10.2",
        "jaxtyping>=0.3.0",
        "jinja2>=3.1.6",  # Chat templates run in its sandbox, which had holes before.
        "matplotlib>=3.9",
        "ml_dtypes>=0.5",
        "nltk>=3.9",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pyarrow>=17.0",
        "rouge-score>=0.1.2",
        "sacrebleu>=2.4",
        "safetensors>=0.5",
        "scipy>=1.14",
        "sentencepiece[protobuf]>=0.2.3",  # With the offsets of pieces.
        "seqio>=0.0.20",
        "tensorboard>=2.19",
        "tensorflow>=2.20",
        "tensorflow-datasets>=4.9.9",
        "tensorstore>=0.1.84",
        "tensorflow-text>=2.20",  # SeqIO takes any, and an older one would bring an older TensorFlow.
        "tokenizers>=0.21",
        "tqdm>=4.66",
        "xxhash>=3.5",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2"],
        # The TPU compiler alone, for `lmirl compile` on a machine without TPUs.
        "compile": ["libtpu>=0.0.42"],
        "cuda": ["jax[cuda13]>=0.10.2"],
        "hub": ["huggingface_hub>=0.30"],
        "wandb": ["wandb>=0.18"],
        "parity": ["torch>=2.5", "transformers>=5.0", "peft>=0.21"],
        "test": TEST,
    },
    entry_points={"console_scripts": ["lmirl = lmirl_jax.cli:run"]},
)
