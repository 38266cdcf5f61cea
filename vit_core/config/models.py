"""The configurations of the models: what each is built from, checked once, written as transformers 4.57 writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack, overload

from vit_core.config.base import CONFIGS, PretrainedConfig
from vit_core.config.relatives import READ, as_vit
from vit_core.config.rules import (
    BASE_RULES,
    GATED_ACTIVATIONS,
    Activation,
    Bool,
    Deviation,
    Epsilon,
    Heads,
    Layers,
    LayerScale,
    MaskRatio,
    Probability,
    Registers,
    Rule,
    Side,
    Sides,
    Width,
    rules_of,
)
from vit_core.config.sizes import indivisible, pair, patch_grid
from vit_core.config.stored import read_config
from vit_core.errors import ConfigError
from vit_core.keywords import ConfigKeywords
from vit_core.plain_values import is_int, short


class ViTConfig(PretrainedConfig):
    """Configuration of a Vision Transformer; the defaults are ViT-Base/16 at 224 pixels.

    Args:
        hidden_size: width of every token; divisible by `num_attention_heads`.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads of each attention.
        intermediate_size: width of the MLP.
        hidden_act: activation of the MLP: a name in `ACTIVATIONS`, or a callable of the backend (cannot be saved).
        hidden_dropout_prob: dropout after the embeddings, the attention output and the MLP output.
        attention_probs_dropout_prob: dropout of the attention probabilities.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: epsilon of every LayerNorm.
        image_size: pixels, int for a square or (height, width).
        patch_size: pixels, int for a square or (height, width).
        num_channels: channels of the images.
        qkv_bias: whether query, key and value have biases.
        encoder_stride: pixels per patch side that the masked-image-modelling head paints.
        pooler_output_size: width of the pooler; None or 0 means hidden_size.
        pooler_act: activation of the pooler.
        use_class_token: whether a class token stands in front of the patches; without one use_mean_pooling is needed.
        num_register_tokens: tokens without position between the class token and the patches, as in DINOv2's models.
        use_mean_pooling: whether heads read the mean of the patches instead of the class token. The pooler then is that
            mean, and the final norm is the mean's: the last hidden state is not normalised.
        norm_before_pooling: with use_mean_pooling, whether the final norm is that of the tokens all the same.
        pool_class_token: with norm_before_pooling, whether heads and the pooler read the class token and behind it the
            mean, 2 * hidden_size numbers, as the classifiers of transformers' Dinov2.
        layerscale_value: what each layer's LayerScales, which multiply the outputs of its attention and its MLP, start
            from; None for layers without.
        use_swiglu_ffn: whether the MLP is gated: intermediate_size numbers are halved, the second half times the SiLU
            of the first; hidden_act means nothing then.
        **kwargs: the shared fields: num_labels, id2label, label2id, problem_type, output_attentions,
            output_hidden_states, return_dict, dtype (or torch_dtype), attn_implementation ("sdpa" | "eager"),
            drop_path_rate (stochastic depth of the encoder, see `drop_path_rates`), pruned_heads,
            architectures; anything else is kept in `extra`.

    Raises:
        ConfigError: listing every violation.
    """

    model_type = "vit"

    def __init__(
        self,
        /,
        hidden_size: Width = 768,
        num_hidden_layers: Layers = 12,
        num_attention_heads: Heads = 12,
        intermediate_size: Width = 3072,
        hidden_act: Activation = "gelu",
        hidden_dropout_prob: Probability = 0.0,
        attention_probs_dropout_prob: Probability = 0.0,
        initializer_range: Deviation = 0.02,
        layer_norm_eps: Epsilon = 1e-12,
        image_size: Sides = 224,
        patch_size: Sides = 16,
        num_channels: Width = 3,
        qkv_bias: Bool = True,
        encoder_stride: Side = 16,
        pooler_output_size: Width | None = None,
        pooler_act: Activation = "tanh",
        use_class_token: Bool = True,
        num_register_tokens: Registers = 0,
        use_mean_pooling: Bool = False,
        norm_before_pooling: Bool = False,
        pool_class_token: Bool = False,
        layerscale_value: LayerScale = None,
        use_swiglu_ffn: Bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__({name: value for name, value in locals().items() if name in self._rules}, kwargs)

    _rules: ClassVar[Mapping[str, Rule]] = {**BASE_RULES, **rules_of(__init__)}

    def __setattr__(self, name: str, value: Any) -> None:
        hidden_size = vars(self).get("hidden_size")
        if name == "pooler_output_size" and (value is None or (is_int(value) and value == 0)):
            value = hidden_size
        super().__setattr__(name, value)
        if name == "hidden_size" and vars(self).get("pooler_output_size", 0) == hidden_size:
            super().__setattr__("pooler_output_size", value)

    def _violations(self) -> Iterator[str]:
        yield from super()._violations()
        yield from _odd_glu(self, "mlp_act", "intermediate_size")
        yield from _odd_glu(self, "pooler_act", "pooler_output_size")
        if not (self.use_class_token or self.use_mean_pooling):
            yield "use_class_token: expected True without use_mean_pooling, since heads read one of them, got False"
        if self.norm_before_pooling and not self.use_mean_pooling:
            yield "norm_before_pooling: expected False without use_mean_pooling, got True"
        if self.pool_class_token and not (self.use_class_token and self.norm_before_pooling):
            yield "pool_class_token: expected False without use_class_token and norm_before_pooling, got True"

    def _num_weights(self) -> int:
        heads: int = self.hidden_size * (self.pooler_output_size + self.encoder_stride**2 * self.num_channels)
        return super()._num_weights() + heads


class ViTMAEConfig(PretrainedConfig):
    """Configuration of a Masked Autoencoder; the defaults are ViTMAE-Base at 224 pixels.

    Args:
        hidden_size … qkv_bias: as in `ViTConfig`; hidden_size is divisible by 4 as well (sin-cos positions).
        decoder_num_attention_heads: heads of each decoder attention.
        decoder_hidden_size: width of the decoder; divisible by its heads and by 4.
        decoder_num_hidden_layers: decoder layers.
        decoder_intermediate_size: width of the decoder's MLP.
        mask_ratio: share of the patches hidden from the encoder, in [0, 1).
        norm_pix_loss: whether the loss compares pixels normalised per patch.
        **kwargs: as in `ViTConfig`.

    Raises:
        ConfigError: listing every violation.
    """

    model_type = "vit_mae"

    def __init__(
        self,
        /,
        hidden_size: Width = 768,
        num_hidden_layers: Layers = 12,
        num_attention_heads: Heads = 12,
        intermediate_size: Width = 3072,
        hidden_act: Activation = "gelu",
        hidden_dropout_prob: Probability = 0.0,
        attention_probs_dropout_prob: Probability = 0.0,
        initializer_range: Deviation = 0.02,
        layer_norm_eps: Epsilon = 1e-12,
        image_size: Sides = 224,
        patch_size: Sides = 16,
        num_channels: Width = 3,
        qkv_bias: Bool = True,
        decoder_num_attention_heads: Heads = 16,
        decoder_hidden_size: Width = 512,
        decoder_num_hidden_layers: Layers = 8,
        decoder_intermediate_size: Width = 2048,
        mask_ratio: MaskRatio = 0.75,
        norm_pix_loss: Bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__({name: value for name, value in locals().items() if name in self._rules}, kwargs)

    _rules: ClassVar[Mapping[str, Rule]] = {**BASE_RULES, **rules_of(__init__)}

    def _violations(self) -> Iterator[str]:
        yield from super()._violations()
        yield from indivisible(self, "decoder_hidden_size", "decoder_num_attention_heads")
        if self.norm_pix_loss and math.prod(pair(self.patch_size)) * self.num_channels == 1:
            yield "norm_pix_loss: expected patches of at least 2 numbers (one alone has no variance), got 1"
        for name in ("hidden_size", "decoder_hidden_size"):
            if (width := getattr(self, name)) % 4:
                yield f"{name}: expected a multiple of 4 for the sin-cos positions, got {width}"
        yield from _odd_glu(self, "hidden_act", "intermediate_size")
        yield from _odd_glu(self, "hidden_act", "decoder_intermediate_size")

    def _num_weights(self) -> int:
        rows, columns = patch_grid(self)
        pixels = math.prod(pair(self.patch_size)) * self.num_channels
        layers = self.decoder_num_hidden_layers * (4 * self.decoder_hidden_size + 2 * self.decoder_intermediate_size)
        decoder: int = self.decoder_hidden_size * (rows * columns + pixels + layers + self.hidden_size)
        return super()._num_weights() + decoder


CONFIGS.update({config.model_type: config for config in (ViTConfig, ViTMAEConfig)})


class AutoConfig:
    """Reads a configuration of whichever class its `model_type` names."""

    @overload
    @staticmethod
    def from_pretrained(
        name_or_path: str | Path, *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[ViTConfig | ViTMAEConfig, dict[str, Any]]: ...
    @overload
    @staticmethod
    def from_pretrained(
        name_or_path: str | Path, *, return_unused_kwargs: Literal[False] = False, **kwargs: Unpack[ConfigKeywords]
    ) -> ViTConfig | ViTMAEConfig: ...
    @staticmethod
    def from_pretrained(name_or_path: str | Path, *, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As `ViTConfig.from_pretrained`, for the class that the file names.

        Raises:
            ConfigError: model_type is missing, or none that is read (`vit_core.config.relatives` has those beside "vit"
                and "vit_mae").
        """
        data, overrides = read_config(name_or_path, kwargs)
        return AutoConfig.from_dict(data, return_unused_kwargs=return_unused_kwargs, **overrides)

    @staticmethod
    def from_dict(config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As `ViTConfig.from_dict`, for the class that the keys name; raises as `from_pretrained` does."""
        data = as_vit(config_dict)
        config_class: Any = _class_of(data.get("model_type"), str(data.get("name_or_path", "AutoConfig.from_dict")))
        return config_class.from_dict(data, return_unused_kwargs=return_unused_kwargs, **kwargs)

    @staticmethod
    def for_model(model_type: str, **kwargs: Any) -> PretrainedConfig:
        """A new configuration of the class for `model_type`."""
        return _class_of(model_type, "AutoConfig.for_model")(**kwargs)


def _class_of(model_type: object, where: str) -> type[PretrainedConfig]:
    if isinstance(model_type, str) and model_type in CONFIGS:
        return CONFIGS[model_type]
    known = ", ".join([*CONFIGS, *READ])
    raise ConfigError(f"{where}: expected model_type to be one of {known}, got {short(model_type)}.")


def _odd_glu(config: PretrainedConfig, activation: str, width: str) -> Iterator[str]:
    if (name := getattr(config, activation)) in GATED_ACTIVATIONS and getattr(config, width) % 2:
        said = "use_swiglu_ffn" if name == "swiglu" else f"{activation.replace('mlp', 'hidden')} {name!r}"
        yield f"{width}: expected an even number for {said}, which halves it, got {getattr(config, width)}"
