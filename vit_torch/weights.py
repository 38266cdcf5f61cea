"""The weights of a model: fresh values, arrays as tensors, pruning, devices, and files that others write."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_core.parameters import Parameter, sincos_of
from vit_core.plain_values import short
from vit_core.tensors import Array


@torch.no_grad()
def prune(attention: Any, heads: Sequence[int]) -> None:
    """Cuts heads out of one attention: rows of query, key and value, columns of the output."""
    kept = [place for place, head in enumerate(attention.heads) if head not in heads]
    dense = attention.output["dense"]
    places = torch.arange(dense.in_features, device=dense.weight.device)
    rows = places.unflatten(0, (-1, attention.head_dim))[kept].flatten()
    for projection in attention.attention.values():
        projection.weight = _replaced(projection.weight, projection.weight[rows])
        if projection.bias is not None:
            projection.bias = _replaced(projection.bias, projection.bias[rows])
        projection.out_features = len(rows)
    dense.weight = _replaced(dense.weight, dense.weight[:, rows])
    dense.in_features = len(rows)
    attention.heads = tuple(attention.heads[place] for place in kept)


def _replaced(parameter: nn.Parameter, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.contiguous(), requires_grad=parameter.requires_grad)


def as_tensor(array: Array | Tensor) -> Tensor:
    """An array as a tensor, without a copy where that can be."""
    if isinstance(array, Tensor):
        return array
    array = np.require(array, requirements="W")  # torch warns of arrays it could not write to, and copies none
    if array.dtype.name == "bfloat16":  # torch does not know NumPy's bfloat16: pass the bits
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def fill(tensor: Tensor, row: Parameter, config: PretrainedConfig) -> None:
    """Draws fresh values for one parameter from torch's generator."""
    kind, value = row.init
    if kind == "trunc_normal":
        nn.init.trunc_normal_(tensor, mean=0.0, std=value, a=-2.0, b=2.0)
    elif kind == "normal":
        nn.init.normal_(tensor, mean=0.0, std=value)
    elif kind == "uniform":
        nn.init.uniform_(tensor, a=-value, b=value)
    elif kind == "sincos":
        tensor.copy_(torch.from_numpy(sincos_of(row, config)))
    else:
        nn.init.constant_(tensor, value)


def placed(model: str, device_map: object = None) -> torch.device:
    """The one device that a `device_map` names, or that a model goes to without one.

    Args:
        model: name of its class, for messages.
        device_map: a device in any form that torch takes, {"": such a device}, or "auto": the accelerator where there
            is one, else the CPU. Torch's default device where None.

    Raises:
        InputError: several devices, or none that torch knows; or the default device is one that holds no values.
    """
    if device_map is None:
        default = torch.get_default_device()
        if default.type == "meta":
            raise InputError(
                f'{model}: weights were to be loaded while torch\'s default device is "meta", which holds no values.\n'
                f'Load outside of torch.device("meta"), or with device_map="cpu"; a model of shapes is {model}(config).'
            )
        return default
    device = device_map[""] if isinstance(device_map, Mapping) and device_map.keys() == {""} else device_map
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.device(device)  # type: ignore[arg-type]  # whatever the caller has
    except (RuntimeError, TypeError):
        raise InputError(
            f'device_map: expected "auto", a device, or {{"": a device}}, got {short(device_map)}.\n'
            "A model goes to one device; for several, load it, then accelerate.dispatch_model(model, device_map)."
        ) from None


def writer(save_function: Callable[..., object]) -> Callable[[dict[str, Array], Path], object]:
    """What writes one file of weights by a function of the caller: called with tensors by name, and the path.

    A function that can also write pickles (accelerator.save) is told to write safetensors, and one that takes metadata
    gets those that transformers asks for.
    """
    try:
        taken = inspect.signature(save_function).parameters.keys()
    except (TypeError, ValueError):  # built in
        taken = {}.keys()
    keywords = {"safe_serialization": True, "metadata": {"format": "pt"}}
    keywords = {name: value for name, value in keywords.items() if name in taken}
    return lambda arrays, path: save_function(
        {name: as_tensor(array) for name, array in arrays.items()}, str(path), **keywords
    )
