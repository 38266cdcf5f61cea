"""Small models of any backend, every parameter random, sizes odd; and what tests ask of each backend in one way."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import oracle

from vit_core.config import PretrainedConfig
from vit_core.parameters import draw

# XLA, in JAX and TensorFlow alike. Most of the time goes into compiling: of that, most into optimising, of the rest
# half into fusing by way of MLIR, and then a third into code in several pieces, which is for programs that are large.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "image_size": (12, 20),
    "patch_size": 4,
}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 20,
}
FIELDS: dict[str, dict[str, int]] = {
    "ViTModel": {},
    "ViTForImageClassification": {"num_labels": 5},
    "ViTForMaskedImageModeling": {"encoder_stride": 4},
    "ViTMAEModel": {},
    "ViTMAEForPreTraining": DECODER,
}
MAIN_OUTPUT = {
    "ViTModel": "last_hidden_state",
    "ViTForImageClassification": "logits",
    "ViTForMaskedImageModeling": "reconstruction",
    "ViTMAEModel": "last_hidden_state",
    "ViTMAEForPreTraining": "logits",
}
PATCHES = 15


class Backend:
    """One backend as tests see it. Classes may be named with its prefix or without.

    Attributes:
        name: as in `vitriad.BACKENDS`.
        prefix: of its classes.
        package: its package.
        tensors_word: what image processors call its tensors.
        relu: a function of its framework.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    package: ClassVar[ModuleType]
    tensors_word: ClassVar[str]
    relu: ClassVar[Callable[[Any], Any]]

    def __str__(self) -> str:
        return self.name

    def cls(self, name: str) -> Any:
        return getattr(self.package, self.prefix + name.removeprefix(self.prefix))

    def make_config(self, name: str, **fields: Any) -> PretrainedConfig:
        own = FIELDS[name.removeprefix(self.prefix)]
        return self.cls(name).config_class(**{**SIZES, **own, **fields})

    def make_tensors(
        self, name: str, dtype: Any = "float32", options: dict | None = None, **fields: Any
    ) -> dict[str, np.ndarray]:
        random = np.random.default_rng(zlib.crc32(self.cls(name).__name__.encode()))
        return {
            key: (array + 0.2 * random.standard_normal(array.shape)).astype(dtype)
            for key, array in draw(self.make_config(name, **fields), name, seed=1, **(options or {})).items()
        }

    def make_model(self, name: str, dtype: Any = "float32", options: dict | None = None, **fields: Any) -> Any:
        tensors = self.make_tensors(name, dtype, options, **fields)
        return self.cls(name).from_tensors(self.make_config(name, **fields), tensors, **(options or {}))

    def of_case(self, case: oracle.Case, dtype: str) -> Any:
        """The model of one of the oracle's cases."""
        tensors = {name: array.astype(dtype) for name, array in oracle.random_tensors(case).items()}
        return self.as_tested(self.cls(case.cls).from_tensors(case.config, tensors, **case.options))

    def make_inputs(self, name: str, batch: int = 2, height: int = 12, width: int = 20) -> dict[str, Any]:
        random = np.random.default_rng(zlib.crc32(self.cls(name).__name__.encode()))
        inputs = {"pixel_values": random.standard_normal((batch, 3, height, width), np.float32)}
        if "MAE" in name:
            inputs["noise"] = random.random((batch, (height // 4) * (width // 4)), np.float32)
        return inputs

    def native(self, array: np.ndarray) -> Any:
        """The array as users of this backend hold it."""
        return array

    def train(self, model: Any, seed: int, inputs: Mapping[str, Any]) -> Any:
        """A call as in training, with random numbers that follow from the seed."""
        raise NotImplementedError

    def gradients(self, model: Any, seed: int, inputs: Mapping[str, Any]) -> list[np.ndarray]:
        """Those of one training step, of the sum of squares of the main output."""
        raise NotImplementedError

    def add_one(self, model: Any) -> None:
        """Changes every parameter in place, as an optimizer does."""
        raise NotImplementedError

    def main_output(self, model: Any) -> str:
        return MAIN_OUTPUT[type(model).__name__.removeprefix(self.prefix)]

    def seed(self, seed: int) -> None:
        """Settles the random numbers of models that are made next."""

    def config_inside(self, model: Any) -> PretrainedConfig:
        """The configuration that the encoder inside a model reads."""
        return model.vit.config

    def refusals(self, model: Any, inputs: Mapping[str, Any], in_graphs: bool) -> dict[str, Callable[[], Any]]:
        """The ways to call a model that all refuse bad inputs; `in_graphs`, what shapes and dtypes alone tell."""
        return {"called": lambda: model(**inputs)}

    def other_calls(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Callable[[], Any], ...]:
        """The ways to call a model beside keywords that only this backend has."""
        return ()

    def as_tested(self, model: Any) -> Any:
        """A model that was loaded, set as `make_model` sets those it makes."""
        return model

    def strict(self) -> AbstractContextManager[Any]:
        """Around every test."""
        return nullcontext()

    def doubles(self) -> AbstractContextManager[Any]:
        """Around what computes in float64."""
        return nullcontext()

    def steps(self) -> AbstractContextManager[Any]:
        """Around steps of training, of which there are many and small ones."""
        return nullcontext()
