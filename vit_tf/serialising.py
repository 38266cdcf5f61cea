"""Models as Keras writes them: what `from_config` makes the same model from, and `.keras` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_tf import _keras


class SerialisedModel(keras.Model):
    """A model that Keras can write down and make again."""

    config: Any
    config_class: ClassVar[type[PretrainedConfig]]
    options: dict[str, bool]

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same model from, with fresh weights."""
        policy = keras.dtype_policies.serialize(self.dtype_policy)
        frozen = [path for path, layer in self._layers_by_path().items() if not layer.trainable]  # Keras forgets them
        settings = {"name": self.name, "dtype": policy, "trainable": self.trainable, "frozen": frozen}
        return {"config": self.config.to_dict(), **self.options, **settings, **self._quantised()}

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None, **kwargs: Any) -> Self:
        """The model of what `get_config` gave, or of a configuration."""
        if isinstance(config, PretrainedConfig):
            return cls(config, **kwargs)
        settings = {**config, **kwargs}
        if "config" not in settings:
            raise InputError(
                f"{cls.__name__}: from_config: expected a {cls.config_class.__name__} or what get_config() gave, got "
                f"{str(config)[:80]}."
            )
        fields, frozen, quantised = settings.pop("config"), settings.pop("frozen", ()), settings.pop("quantised", {})
        model = cls(cls.config_class.from_dict(fields), **settings)
        for path, layer in model._layers_by_path().items():
            if path in quantised:
                how = keras.saving.deserialize_keras_object(quantised[path]["config"])
                layer.quantize(quantised[path]["mode"], config=how)
            layer.trainable = path not in frozen
        return model

    def _quantised(self) -> dict[str, Any]:
        """How which layers were quantised, where some were: after that, their weights have other dtypes and names."""
        how = {
            path: {
                "mode": layer.quantization_mode,
                "config": keras.saving.serialize_keras_object(getattr(layer, "quantization_config", None)),
            }
            for path, layer in self._layers_by_path().items()
            if layer.quantization_mode is not None
        }
        return {"quantised": how} if how else {}

    def _layers_by_path(self) -> dict[str, keras.layers.Layer]:
        """Every layer with weights, outer ones first, by its path in this model."""
        layers = _keras.layers_of(self, itself=False)
        return {layer.path.removeprefix(f"{self.path}/"): layer for layer in layers if layer.weights}

    def save(self, filepath: str | Path, **kwargs: Any) -> None:
        """Writes a `.keras` file, as keras.Model.save does.

        Raises:
            ConfigError: a callable activation cannot be saved.
        """
        self.config.to_json_string()  # raises: what Keras would write instead, it could not read
        super().save(filepath, **kwargs)
