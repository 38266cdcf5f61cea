"""Faster inference on a CPU: `optimize_for_inference` changes how the layers of a model compute, and nothing else.

Matrix products take most of the time. Their kernels are faster with matrices in the order in which they are read, with
query, key and value as one product, and where they add bias, activation and residual before they write. Nothing is
compiled: torch.compile with frozen weights measured at most 5 % faster, after half a minute for each size of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_core.errors import InputError
from vit_torch.layers import is_tracing
from vit_torch.pretrained import PreTrainedModel
from vit_torch.products import FUSED, PLAIN, Product, has_mkl_products
from vit_torch.recomputing import InferenceOnly
from vit_torch.vit import ViTAttention, ViTEncoder, ViTLayer

Model = TypeVar("Model", bound=PreTrainedModel)

_UNDO = "vit_torch.undo_optimization(model) makes it an ordinary model again."


def optimize_for_inference(model: Model, dtype: torch.dtype | None = None) -> Model:
    """Makes a model faster on the CPU, in place, until `undo_optimization`.

    The class, the call and its outputs, `state_dict` and `save_pretrained` stay as they are. The model cannot be
    trained meanwhile: it is in eval mode, its parameters require no gradients, and asking for one is an error.

    The first call packs the weights of the layers, in `dtype`, in a fraction of a second; the model then holds them
    twice. Calls of any batch and image size follow at once. In float32 on Intel packing is for the number of tokens of
    that first call; images of another size are computed at torch's ordinary speed. Weights that change are packed
    anew; copies and pickles pack their own.

    Hooks on modules inside a layer do not run; on layers and on what is around them they do. Where torch traces the
    model (torch.compile, torch.export), it sees the ordinary layers.

    Example:
        model = optimize_for_inference(ViTModel.from_pretrained("my-vit"), torch.bfloat16)

    Args:
        model: on the CPU, in float32 or bfloat16.
        dtype: what the layers compute in, torch.float32 or torch.bfloat16; None for the model's own. Embeddings, heads
            and all outputs keep the model's.

    Returns:
        the model itself.

    Raises:
        InputError: another device or dtype, or this processor cannot compute in it.
    """
    _check(type(model).__name__, model, dtype)
    undo_optimization(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for layer in _modules(model, ViTLayer):
        layer.__class__ = OptimizedLayer
        layer.dtype, layer.is_last, layer.packed = dtype, False, None
    for encoder in _modules(model, ViTEncoder):
        encoder.__class__ = OptimizedEncoder
    for stack in _modules(model, nn.ModuleList):
        if len(stack):
            stack[-1].is_last = True
    model.eval().requires_grad_(False)
    model.__dict__["_trained"] = trained
    return model


def undo_optimization(model: Model) -> Model:
    """Makes an optimised model an ordinary one again, in eval mode, and frees what was packed; no other changes.

    Returns:
        the model itself.
    """
    for layer in _modules(model, OptimizedLayer):
        layer.__class__ = ViTLayer
        del layer.dtype, layer.is_last, layer.packed
    for encoder in _modules(model, OptimizedEncoder):
        encoder.__class__ = ViTEncoder
    trained = model.__dict__.pop("_trained", ())
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.requires_grad_(True)
    return model


def _check(name: str, weights: Any, dtype: torch.dtype | None) -> None:
    """Raises unless products of weights, or of what has a device and dtype like them, can be packed."""
    dtypes, has_bfloat16 = {weights.dtype, dtype or weights.dtype}, torch.ops.mkldnn._is_mkldnn_bf16_supported
    if wrong := dtypes - {torch.float32, torch.bfloat16}:
        problem = f"expected float32 or bfloat16, got {wrong.pop()}.\nConvert the model first: model.float()"
    elif weights.device.type != "cpu":
        problem = f"expected a model on the CPU, it is on {weights.device}.\nOn other devices: torch.compile(model)"
    elif not torch.backends.mkldnn.is_available() or (torch.bfloat16 in dtypes and not has_bfloat16()):
        problem = "oneDNN, which torch computes with, cannot do this on this processor."
    else:
        return
    raise InputError(f"optimize_for_inference: {name}: {problem}")


def _modules(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if type(module) is kind]


class OptimizedEncoder(InferenceOnly, ViTEncoder):
    """The stack of layers, all hidden states in the dtype of the last, which is the model's."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See `ViTEncoder`."""
        last, states, attentions = super().forward(*args, **kwargs)
        return last, states and tuple(state.to(last.dtype) for state in states), attentions


class OptimizedLayer(InferenceOnly, ViTLayer):
    """A layer that computes with packed weights.

    Attributes:
        dtype: what it computes in; None for that of its weights.
        is_last: whether it returns the dtype of its weights; layers before it leave what they computed in.
        packed: made in the first call, and again where weights have changed.
    """

    dtype: torch.dtype | None
    is_last: bool
    packed: Packed | None

    def forward(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        left_out: Any = (None, None),
    ) -> tuple[Tensor, Tensor | None]:
        """See `ViTLayer`; nothing is left out, as that is for training.

        Raises:
            InputError: gradients are asked for.
        """
        if torch.compiler.is_compiling() or is_tracing():
            return super().forward(hidden_states, head_mask, output_attentions, left_out)
        if hidden_states.requires_grad and torch.is_grad_enabled():
            raise InputError(f"{type(self).__name__}: no gradients: the model is optimised for inference.\n{_UNDO}")
        packed, batch = self._packed(hidden_states), len(hidden_states)
        if not packed.is_by_image or batch < 2:
            return self._computed(packed, hidden_states, head_mask, output_attentions)
        masks = (None,) * batch if head_mask is None else head_mask.expand(batch, -1, -1, -1).split(1)
        done = [
            self._computed(packed, *given, output_attentions)
            for given in zip(hidden_states.split(1), masks, strict=True)
        ]
        states, probabilities = zip(*done, strict=True)
        return torch.cat(states), torch.cat(probabilities) if output_attentions else None

    def _computed(
        self, packed: Packed, hidden_states: Tensor, head_mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        mask = None if head_mask is None else head_mask.to(packed.dtype)
        hidden_states = hidden_states.to(packed.dtype)
        projected = packed.projections(packed.norm_before(hidden_states))  # (batch, tokens, 3 * heads * head_dim)
        context, probabilities = self._attended(projected, mask, output_attentions)
        hidden_states = packed.attention_output(context, hidden_states)
        mlp = packed.intermediate(packed.norm_after(hidden_states))  # (batch, tokens, mlp)
        if not packed.is_fused:
            mlp = self.intermediate["intermediate_act_fn"](mlp.to(packed.own_dtype)).to(packed.dtype)
        hidden_states = packed.output(mlp, hidden_states)
        if self.is_last:
            hidden_states = hidden_states.to(packed.own_dtype)
        return hidden_states, None if probabilities is None else probabilities.to(packed.own_dtype)

    def _attended(
        self, projected: Tensor, head_mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What `ViTAttention` makes of projections that are there already, before its dense layer."""
        parts = zip(("query", "key", "value"), projected.chunk(3, dim=2), strict=True)
        given = SimpleNamespace(
            **{name: getattr(self.attention, name) for name in ("head_dim", "heads", "dropout_prob", "implementation")},
            training=False,
            attention={name: lambda _, part=part: part for name, part in parts},
            output={"dense": lambda context: context},
        )
        attended: Any = ViTAttention.forward
        context, probabilities = attended(given, projected, head_mask, output_attentions)
        return context, probabilities

    def _packed(self, hidden_states: Tensor) -> Packed:
        linears, norms = _parts(self)
        held = [tensor for each in (*linears, *norms) for tensor in (each.weight, each.bias)]
        held += [self.layer_scale1.lambda1, self.layer_scale2.lambda1]
        tensors = [tensor for tensor in held if tensor is not None]
        state = [(id(each), each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors]
        if self.packed is None or self.packed.state != state:
            self.packed = Packed(self, tensors, state, hidden_states.shape[1])
        return self.packed

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "packed": None}  # copies and pickles make their own


class Packed:
    """The weights of a layer, ready for its products.

    Attributes:
        state: what the weights were when they were packed.
        is_by_image: whether images are computed one at a time: MKL's order is for the rows of one, which also stay in
            the processor's cache so.
        is_fused: whether the activation is part of the product before it.
        dtype: what is computed in.
        own_dtype: that of the weights themselves.
    """

    def __init__(self, layer: OptimizedLayer, tensors: list[Tensor], state: list[Any], tokens: int) -> None:
        if any(each.requires_grad for each in tensors):
            raise InputError(f"{type(layer).__name__}: weights require gradients: the model is optimised.\n{_UNDO}")
        _check(type(layer).__name__, tensors[0], layer.dtype)
        self.tensors, self.state, self.own_dtype = tensors, state, tensors[0].dtype
        self.dtype = dtype = layer.dtype or self.own_dtype
        (*attention, attention_output, intermediate, output), norms = _parts(layer)
        self.is_by_image = has_mkl_products(dtype)
        act: Any = layer.intermediate["intermediate_act_fn"]
        fused = None if self.is_by_image else FUSED.get(getattr(act, "function", None))
        self.is_fused = fused is not None

        def product(linears: Sequence[nn.Linear], fused: Any = PLAIN, scale: Any = None) -> Product:
            weight = torch.cat([each.weight for each in linears])
            bias = None if linears[0].bias is None else torch.cat([each.bias for each in linears])
            if scale is not None:  # LayerScale multiplies what the product gives
                weight, bias = weight * scale[:, None], None if bias is None else bias * scale
            return Product(weight.to(dtype), None if bias is None else bias.to(dtype), tokens, fused)

        with torch.no_grad():
            scales = layer.layer_scale1.lambda1, layer.layer_scale2.lambda1
            self.projections, self.intermediate = product(attention), product([intermediate], fused or PLAIN)
            self.attention_output = product([attention_output], scale=scales[0])
            self.output = product([output], scale=scales[1])
            self.norm_before, self.norm_after = (_norm(each, dtype) for each in norms)


def _parts(layer: OptimizedLayer) -> tuple[list[Any], list[Any]]:
    """The linear layers of a layer, in the order of their use, and its norms.

    Raises:
        InputError: something else is in their place, such as an adapter.
    """
    attention = layer.attention
    projections = [attention.attention[name] for name in ("query", "key", "value")]
    linears = [*projections, attention.output["dense"], layer.intermediate["dense"], layer.output["dense"]]
    if wrong := next((each for each in linears if type(each) is not nn.Linear), None):
        raise InputError(f"{type(layer).__name__}: expected nn.Linear, got {type(wrong).__name__}.\n{_UNDO}")
    return linears, [layer.layernorm_before, layer.layernorm_after]


def _norm(norm: nn.LayerNorm, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight, bias = norm.weight.to(dtype), norm.bias.to(dtype)
    return lambda x: F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
