"""The sizes and inputs of the models that transformers' common tests are run on."""

import numpy as np

BATCH, CHANNELS, SIDE, PATCH = 3, 3, 16, 4
PATCHES = (SIDE // PATCH) ** 2
SIZES = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "encoder_stride": PATCH,
}
DECODER = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2}
DECODER |= {"decoder_intermediate_size": 28, "mask_ratio": 0.5}


def pixels() -> np.ndarray:
    return np.random.default_rng(3).uniform(size=(BATCH, CHANNELS, SIDE, SIDE)).astype(np.float32)


class Tester:
    """What transformers' tests ask about a model, by the names that they use."""

    batch_size, num_channels, image_size, patch_size = BATCH, CHANNELS, SIDE, PATCH
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    is_training = True
    num_masks, mask_length = 5, PATCHES  # of masked image modelling: so many of so many patches

    def __init__(self, config_class: type, to_tensor, **fields: object) -> None:
        self.config_class, self.to_tensor, self.fields = config_class, to_tensor, fields
        kept = PATCHES // 2 if "mask_ratio" in fields else PATCHES
        self.seq_length = kept + 1

    def get_config(self):
        return self.config_class(**SIZES, **self.fields)

    def prepare_config_and_inputs_for_common(self):
        inputs = {"pixel_values": pixels()}
        if "mask_ratio" in self.fields:  # or each call draws its own mask
            inputs["noise"] = np.random.default_rng(4).uniform(size=(BATCH, PATCHES)).astype(np.float32)
        return self.get_config(), {name: self.to_tensor(array) for name, array in inputs.items()}
