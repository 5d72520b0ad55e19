"""PEFT on checkpoints of transformers. It runs where torch, transformers and peft are, without our library.

python peft_models.py make BASE FOLDER       saves adapters on a base, none of whose matrices is 0, and `expected.npz` beside them
python peft_models.py load BASE FOLDER       writes FOLDER-computed.npz: the logits with the adapters of FOLDER, and once merged
"""

import pathlib
import sys

import numpy as np
import peft
import torch
import transformers

IDS, ENCODER_IDS = [[0, 5, 6, 7, 8]], [[9, 10, 11, 12, 1]]


def load_base(folder: str) -> torch.nn.Module:
    config = transformers.AutoConfig.from_pretrained(folder)
    kinds = transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForCausalLM
    return kinds[0 if config.is_encoder_decoder else 1].from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: torch.nn.Module) -> np.ndarray:
    ids = torch.tensor(IDS)
    given = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        given = {"input_ids": torch.tensor(ENCODER_IDS), "decoder_input_ids": ids}
    with torch.no_grad():
        return model(**given).logits.float().numpy()


def make(base: str, folder: pathlib.Path) -> None:
    torch.manual_seed(0)
    targets = sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in load_base(base).named_modules()
            if _is_inner(name, module)
        }
    )
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets)
    model = peft.get_peft_model(load_base(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    np.savez(folder / "expected.npz", logits=logits(model))


def _is_inner(name: str, module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) and "lm_head" not in name


def load(base: str, folder: pathlib.Path) -> None:
    model = peft.PeftModel.from_pretrained(load_base(base), folder).eval()
    unmerged = logits(model)
    count = sum("lora_A" in name for name, _ in model.named_parameters())
    merged = logits(model.merge_and_unload())
    out = folder.parent / f"{folder.name}-computed.npz"
    np.savez(out, unmerged=unmerged, merged=merged, base=logits(load_base(base)), adapters=count)


if __name__ == "__main__":
    command, base_folder, adapters = sys.argv[1:]
    {"make": make, "load": load}[command](base_folder, pathlib.Path(adapters))
