"""Small tasks that the tests of this room share."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.seqio_library import seqio, tf
from tests.data import chat_templates


@pytest.fixture
def write_jsonl(tmp_path):
    """Writes examples, or raw lines, to a file and returns its path."""

    def write(lines, name="examples.jsonl"):
        path = tmp_path / name
        path.write_text(
            "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        )
        return str(path)

    return write


@pytest.fixture
def make_task():
    """A task of a few texts a split; unregistered unless asked."""

    def make(texts, name="letters", register=False, **settings):
        def dataset(split, shuffle_files):
            inputs, targets = zip(*texts[split], strict=True) if texts[split] else ((), ())
            spec = {"inputs": list(inputs), "targets": list(targets)}
            return tf.data.Dataset.from_tensor_slices({k: tf.constant(v, tf.string) for k, v in spec.items()})

        feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
        arguments = {
            "name": name,
            "source": seqio.FunctionDataSource(dataset, splits=tuple(texts)),
            "preprocessors": [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            "output_features": {"inputs": feature, "targets": feature},
        } | settings
        if register:
            seqio.TaskRegistry.add(**arguments)
            registered.append(name)
        return seqio.Task(**arguments)

    registered = []
    yield make
    for name in registered:
        seqio.TaskRegistry.remove(name)


@pytest.fixture
def single():
    """A SeqIO task as `get_task` would return it."""
    return lambda task: Task(task.name, (task,), (1.0,))


# Texts that tokenizers are known to change, or to read in two ways.
HARD_TEXTS = (
    *(
        "",
        "a",
        " a",
        "a ",
        "two  spaces",
        "a\nb\n\nc\td",
        "für Größe",
        "日本語 です",
        "🙂 👩\u200d👧",
        "<b> x < y {z}",
        "1+2! is 3!",
    ),
    *(
        "e\u0301 ﬁ ½",
        "don't , . !",
        "A b C",
        "x\u00a0y\u3000z",
        "compare 12 and 13 if a then x = 12 ; y = 12",
    ),
)
SENTENCES = [f"compare {n} and {n + 1} if a then x = {n} ; y = {n}" for n in range(100)]


def write_tokenizer_folder(folder, tokenizer, **files):
    """Writes a tokenizer of the library tokenizers as tokenizer.json, and further JSON files by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def hf_t5(tmp_path_factory):
    """A folder with a tokenizer like T5's: unigram with spaces in its pieces, `$A </s>`; it lacks most characters."""
    tokenizer = Tokenizer(models.Unigram())
    pieces = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pieces])
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=70, unk_token="<unk>", special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens([f"<extra_id_{n}>" for n in reversed(range(3))])
    config = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 3,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "additional_special_tokens": [f"<extra_id_{n}>" for n in range(3)],
    }
    return write_tokenizer_folder(tmp_path_factory.mktemp("hf") / "t5", tokenizer, tokenizer_config=config)


@pytest.fixture(scope="session")
def hf_bytes(tmp_path_factory):
    """A folder with a byte-level tokenizer like SmolLM2's: nothing around a prompt, and two tokens that end an answer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": "<|im_start|>",
    }
    folder = tmp_path_factory.mktemp("hf") / "bytes"
    generation = {"eos_token_id": [2, 0]}
    return write_tokenizer_folder(folder, tokenizer, tokenizer_config=config, generation_config=generation)


@pytest.fixture(scope="session")
def hf_gemma(tmp_path_factory):
    """A folder with a tokenizer like Gemma's: byte pairs that fall back to bytes, `<bos> $A`, and no EOS after a prompt."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", *"abcdefinmporxy0123456789=;", "▁a", "an", "▁c", "co", "▁▁", "if"]
    merges = [("▁", "a"), ("a", "n"), ("▁", "c"), ("c", "o"), ("▁", "▁"), ("i", "f")]
    model = models.BPE(
        {word: i for i, word in enumerate(words)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    roles = ("pad", "eos", "bos", "unk", "mask")
    tokenizer.add_special_tokens([f"<{role}>" for role in roles])
    config = {"tokenizer_class": "GemmaTokenizer", **{f"{role}_token": f"<{role}>" for role in roles}}
    return write_tokenizer_folder(tmp_path_factory.mktemp("hf") / "gemma", tokenizer, tokenizer_config=config)


@pytest.fixture(scope="session")
def hf_chat(hf_bytes, hf_gemma, tmp_path_factory):
    """Folders with chat templates, by the name of their style; the tokenizers are those of hf_bytes and hf_gemma."""

    def make(name, base, template, tokens=(), in_config=False, **roles):
        folder = tmp_path_factory.mktemp("chat") / name
        tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
        tokenizer.add_special_tokens(list(tokens))
        config = json.loads((base / "tokenizer_config.json").read_text()) | roles
        write_tokenizer_folder(folder, tokenizer, tokenizer_config=config | template_of(template, in_config))
        if not in_config:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    def template_of(template, in_config):
        named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
        return {"chat_template": named} if in_config else {}

    header = {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "pad_token": "<|end_of_text|>",
    }
    return {
        "qwen": make("qwen", hf_bytes, chat_templates.QWEN, pad_token="<|im_end|>"),
        "thinking": make("thinking", hf_bytes, chat_templates.THINKING),
        "llama 3": make(
            "llama_3", hf_bytes, chat_templates.LLAMA_3, chat_templates.LLAMA_TOKENS, in_config=True, **header
        ),
        "gemma": make("gemma", hf_gemma, chat_templates.GEMMA, chat_templates.GEMMA_TOKENS),
        "llama 2": make("llama_2", hf_bytes, chat_templates.LLAMA_2),
        "plain": make("plain", hf_bytes, chat_templates.PLAIN),
    }
