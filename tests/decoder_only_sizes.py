"""The published sizes of decoder-only families: the vocabulary and the number of parameters of each."""

# Of the text networks of transformers 5.23, counted without allocating them; an output layer that is not tied counts.
SIZES = {
    "llama": {
        "llama3_2_1b": (128256, 1_235_814_400),
        "llama3_2_3b": (128256, 3_212_749_824),
        "llama3_1_8b": (128256, 8_030_261_248),
        "llama3_1_70b": (128256, 70_553_706_496),
    },
    "smollm2": {
        "smollm2_135m": (49152, 134_515_008),
        "smollm2_360m": (49152, 361_821_120),
        "smollm2_1_7b": (49152, 1_711_376_384),
    },
    "qwen2_5": {
        "qwen2_5_0_5b": (151936, 494_032_768),
        "qwen2_5_1_5b": (151936, 1_543_714_304),
        "qwen2_5_3b": (151936, 3_085_938_688),
        "qwen2_5_7b": (152064, 7_615_616_512),
    },
    "qwen3": {
        "qwen3_0_6b": (151936, 596_049_920),
        "qwen3_1_7b": (151936, 1_720_574_976),
        "qwen3_4b": (151936, 4_022_468_096),
        "qwen3_8b": (151936, 8_190_735_360),
    },
    "gemma2": {
        "gemma2_2b": (256000, 2_614_341_888),
        "gemma2_9b": (256000, 9_241_705_984),
        "gemma2_27b": (256000, 27_227_128_320),
    },
    "gemma3": {
        "gemma3_270m": (262144, 268_098_176),
        "gemma3_1b": (262144, 999_885_952),
        "gemma3_4b": (262208, 3_880_263_168),
    },
}
# The files that others include.
INCLUDED = [f"gin/models/{family}/family.gin" for family in SIZES if family != "smollm2"]
