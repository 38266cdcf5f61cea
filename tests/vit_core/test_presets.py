"""Published sizes: names, and the numbers of parameters that torchvision, timm and the MAE code have for them."""

import math

import pytest

from vit_core.config import ViTConfig, ViTMAEConfig
from vit_core.config.presets import PRESETS
from vit_core.errors import ConfigError
from vit_core.parameters import parameter_table

# With 1000 classes; sizes at other resolutions differ by their rows of positions.
CLASSIFIERS = {
    "vit-tiny-patch16-224": 5_717_416,
    "vit-small-patch16-224": 22_050_664,
    "vit-base-patch16-224": 86_567_656,
    "vit-base-patch16-384": 86_567_656 + (24**2 - 14**2) * 768,
    "vit-base-patch32-224": 88_224_232,
    "vit-base-patch8-224": 86_576_872,
    "vit-large-patch16-224": 304_326_632,
    "vit-large-patch32-384": 306_535_400 + (12**2 - 7**2) * 1024,
    "vit-huge-patch14-224": 632_045_800,
}
AUTOENCODERS = {"vit-mae-base": 111_907_840, "vit-mae-large": 329_541_888, "vit-mae-huge": 657_074_508}


def count(config, cls):
    return sum(math.prod(row.shape) for row in parameter_table(config, cls).values())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name):
    config = ViTConfig.preset(name, num_labels=1000)
    assert count(config, "ViTForImageClassification") == CLASSIFIERS[name]
    assert config.encoder_stride == config.patch_size


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_autoencoders(name):
    config = ViTMAEConfig.preset(name)
    assert count(config, "ViTMAEForPreTraining") == AUTOENCODERS[name]


def test_names_say_what_they_are():
    assert (
        {*PRESETS} == {"vit", "vit_mae"}
        and {*CLASSIFIERS} < {*PRESETS["vit"]}
        and {*AUTOENCODERS} == {*PRESETS["vit_mae"]}
    )
    for name in PRESETS["vit"]:
        config = ViTConfig.preset(name)
        assert name.endswith(f"-patch{config.patch_size}-{config.image_size}")
    assert ViTConfig.preset("vit-base-patch16-224") == ViTConfig()
    assert ViTMAEConfig.preset("vit-mae-base") == ViTMAEConfig()


def test_overrides_and_refusals():
    config = ViTConfig.preset("vit-tiny-patch16-224", hidden_size=96, num_labels=10)
    assert (config.hidden_size, config.pooler_output_size, config.num_labels) == (96, 96, 10)
    for config_class, name in ((ViTConfig, "vit-mae-base"), (ViTMAEConfig, "vit-base-patch16-224"), (ViTConfig, "")):
        with pytest.raises(ConfigError) as caught:
            config_class.preset(name)
        assert f"no preset {name!r}" in str(caught.value)
        assert [known for known in PRESETS[config_class.model_type] if known not in str(caught.value)] == []
    with pytest.raises(ConfigError, match="num_attention_heads 3, got 100"):
        ViTConfig.preset("vit-tiny-patch16-224", hidden_size=100)
