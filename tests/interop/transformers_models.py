"""Tiny models of transformers, and what it computes from them. It runs where torch and transformers are, without our library.

python transformers_models.py make FOLDER     makes a checkpoint of each family, with `expected.npz` in each
python transformers_models.py load FOLDER     prints what is missing or unexpected in a checkpoint, and what it generates
python transformers_models.py count FOLDER    prints the number of parameters of each config.json in folders below
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers
import transformers_decoder_only as decoder_only
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

STEPS = 32
PROMPTS = ("add 3 and 4", "which is more: 12 or 7?", "say it")
VOCAB = 96
T5 = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    # Transformers 5 cannot generate with more layers in the decoder than in the encoder.
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "initializer_factor": 1.0,
}
STACK = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 24,
    "sliding_window": 5,
    "query_pre_attn_scalar": 9,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 8.0,
    "initializer_range": 0.5,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def models() -> dict:
    """A model of each family, by its name; the untied ones have an output embedding of their own."""
    gated = T5 | {"feed_forward_proj": "gated-gelu"}
    untied = gated | {"tie_word_embeddings": False}
    encoder, decoder = STACK | {"hidden_size": 20, "num_hidden_layers": 2}, STACK
    return {
        "t5_1_0": _t5(transformers.T5Config(**T5 | {"feed_forward_proj": "relu"})),
        "t5_1_1": _untie(_t5(transformers.T5Config(**untied))),
        "byt5": _untie(_t5(transformers.T5Config(**untied | {"vocab_size": 384, "num_decoder_layers": 1}))),
        "mt5": _untie(transformers.MT5ForConditionalGeneration(transformers.MT5Config(**untied))),
        "umt5": transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**gated)),
        "t5gemma": transformers.T5GemmaForConditionalGeneration(
            transformers.T5GemmaConfig(
                encoder=encoder,
                decoder=decoder,
                vocab_size=VOCAB,
                tie_word_embeddings=True,
                decoder_start_token_id=2,
                initializer_range=0.5,
            )
        ),
    }


def _t5(config):
    return transformers.T5ForConditionalGeneration(config)


def _untie(model):
    """Gives a model an output embedding of its own, as the published T5 1.1, mT5 and ByT5 have."""
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.5)
    return model


def write_tokenizer(name: str, place: pathlib.Path) -> None:
    """Writes a tokenizer of the family's kind beside a model: EOS behind a prompt, or BOS before it, or neither (Qwen)."""
    if name == "byt5":
        transformers.ByT5Tokenizer().save_pretrained(place)
        return
    has_bos = name == "t5gemma" or name in decoder_only.NAMES
    special = ["<pad>", "</s>", "<bos>" if has_bos else "<unk>"] + ["<unk>"] * has_bos
    characters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789?:.,+-=▁"))
    words = ["▁add", "▁and", "▁is", "▁say", "▁it", "▁more", "12", "▁w", "he", "in", "an", "er", "or"]
    pieces = [(piece, 0.0) for piece in special] + [(piece, -3.0) for piece in words]
    pieces += [(piece, -6.0) for piece in characters]
    tokenizer = Tokenizer(tokenizer_models.Unigram(pieces, unk_id=special.index("<unk>")))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    around = ("<bos> $A", "<bos>") if has_bos else ("$A </s>", "</s>")
    ids = [(around[1], special.index(around[1]))]
    if "qwen" not in name:
        tokenizer.post_processor = processors.TemplateProcessing(single=around[0], special_tokens=ids)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if has_bos:
        named["bos_token"] = "<bos>"
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(place)


def make(folder: pathlib.Path) -> None:
    torch.manual_seed(0)
    # What is made first does not depend on what is made after it.
    for make_models in (models, lambda: decoder_only.models(STACK)):
        _make(folder, make_models())


def _make(folder: pathlib.Path, made: dict) -> None:
    for name, model in made.items():
        with torch.no_grad():
            for parameter, value in model.named_parameters():
                if "norm" in parameter:
                    value += 0.3 * torch.randn_like(value)
                if parameter.endswith("_proj.bias"):
                    value += 0.5 * torch.randn_like(value)
                if name in ("t5_1_0", "umt5", "t5gemma", *decoder_only.NAMES) and (
                    "embed_tokens" in parameter or "shared" in parameter
                ):
                    # A tied embedding of the size of the other weights repeats the token before.
                    value *= 0.15 if name in ("gemma2", "gemma3") else 0.3
                if "relative_attention_bias" in parameter:
                    value.copy_(torch.randn_like(value))
        place = folder / name
        model.save_pretrained(place)
        config = json.loads((place / "config.json").read_text())
        if name in ("t5_1_1", "byt5", "mt5"):
            # As published: transformers 4 wrote these.
            config["tie_word_embeddings"] = False
            config.pop("scale_decoder_outputs", None)
        config.pop("transformers_version", None)
        (place / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        write_tokenizer(name, place)
        np.savez_compressed(place / "expected.npz", **compute(place))


def loader(place: pathlib.Path):
    """The class that reads the model of a folder."""
    is_t5 = "t5" in json.loads((place / "config.json").read_text())["model_type"]
    return transformers.AutoModelForSeq2SeqLM if is_t5 else transformers.AutoModelForCausalLM


def compute(place: pathlib.Path) -> dict:
    """What transformers computes from a folder, for a batch of padded prompts."""
    model = loader(place).from_pretrained(place, dtype=torch.float32).eval()
    # T5's keeps some of its layers in float32 whatever is asked for; here all are.
    random = np.random.default_rng(1)
    lengths, steps = (150, 7, 19), 28
    inputs = random.integers(4, VOCAB, (3, max(lengths)))
    mask = np.arange(max(lengths))[None] < np.array(lengths)[:, None]
    inputs[~mask] = 0
    decoder_ids = random.integers(4, VOCAB, (3, steps))
    if not model.config.is_encoder_decoder:
        logits, greedy = decoder_only.compute(model, inputs, lengths, decoder_ids, STEPS)
    else:
        decoder_ids[:, 0] = model.generation_config.decoder_start_token_id
        given = {"input_ids": torch.tensor(inputs), "attention_mask": torch.tensor(mask.astype(int))}
        with torch.no_grad():
            ids = torch.tensor(decoder_ids)
            logits = model(**given, decoder_input_ids=ids, decoder_attention_mask=torch.ones_like(ids)).logits
            greedy = model.generate(**given, max_new_tokens=STEPS, do_sample=False, num_beams=1)[:, 1:]
        logits, greedy = logits.numpy(), greedy.numpy()
    answers = {}
    if any(place.glob("*token*")):
        answers = {"answers": np.array(_answers(model, place))}
    return {
        **answers,
        "inputs": inputs,
        "lengths": np.array(lengths),
        "decoder_ids": decoder_ids,
        "logits": logits,
        "greedy": greedy,
    }


def _answers(model, place: pathlib.Path) -> list[str]:
    """The greedy answers to prompts, as texts; a folder of transformers is used as its users do."""
    # For Qwen 2, AutoTokenizer replaces the rules of tokenizer.json by those of its own class.
    is_qwen = model.config.model_type == "qwen2"
    kind = transformers.PreTrainedTokenizerFast if is_qwen else transformers.AutoTokenizer
    tokenizer = kind.from_pretrained(place)
    answers = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        made = model.generate(**ids, max_new_tokens=STEPS, do_sample=False, num_beams=1)[0]
        if not model.config.is_encoder_decoder:
            made = made[ids["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return answers


def load(place: pathlib.Path) -> None:
    """Prints, as JSON, what does not fit when transformers loads a folder, and what it computes."""
    _, info = loader(place).from_pretrained(place, output_loading_info=True)
    found = {
        key: sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    computed = compute(place)
    found["greedy"] = computed["greedy"].tolist()
    found["answers"] = computed["answers"].tolist() if "answers" in computed else None
    np.savez(place.parent / f"{place.name}-computed.npz", **computed)
    print(json.dumps(found))


def count(folder: pathlib.Path) -> None:
    """Prints, as JSON, the number of parameters of each network below a folder, which is not allocated."""
    found = {}
    for file in sorted(folder.glob("*/config.json")):
        with torch.device("meta"):
            model = loader(file.parent).from_config(transformers.AutoConfig.from_pretrained(file.parent))
        model.tie_weights()
        found[file.parent.name] = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps(found))


if __name__ == "__main__":
    {"make": make, "load": load, "count": count}[sys.argv[1]](pathlib.Path(sys.argv[2]))
