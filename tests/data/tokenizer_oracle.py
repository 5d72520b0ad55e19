"""Run by the Python that has transformers: prints what AutoTokenizer does with the texts, for each of the folders.

python tokenizer_oracle.py '{"folders": [...], "texts": [...]}'
"""

import json
import sys


def main():
    from transformers import AutoTokenizer

    asked = json.loads(sys.argv[1])
    answers = {}
    for folder in asked["folders"]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer(text)["input_ids"] for text in asked["texts"]]
        plain = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked["texts"]]
        decoded = [tokenizer.decode(each, skip_special_tokens=True) for each in ids]
        answers[folder] = {
            "ids": ids,
            "plain": plain,
            "decoded": decoded,
            "size": len(tokenizer),
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
        }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
