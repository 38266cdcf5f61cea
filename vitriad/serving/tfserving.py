"""TensorFlow Serving's REST form, which is also what Vertex AI sends: models and their versions, and `:predict`."""

from __future__ import annotations

import os
from base64 import b64decode
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vit_core.plain_values import short
from vitriad.serving.batching import Arrays
from vitriad.serving.served import PIXELS, Kind, Served, Tensor
from vitriad.serving.service import Service
from vitriad.serving.wire import IMAGES, check_keys, lists, numbers, parsed, settled
from vitriad.web import Refusal

_DEFAULT = "serving_default"
_TYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "uint8": "DT_UINT8", "string": "DT_STRING"}


class TensorFlowServing:
    """What answers this form. A task beside the first of a model is a signature of that name, or MODEL.TASK.

    Args:
        service: the models.
        health, predict: further routes, as Vertex AI names them; "" for none. The first model answers there.
    """

    def __init__(self, service: Service, health: str = "", predict: str = "") -> None:
        self._service, self._health, self._predict = service, health, predict

    def routes(self) -> list[Route]:
        """The addresses."""
        model = [f"/v1/models/{{name}}{version}" for version in ("", "/versions/{version}")]
        routes = [
            *(Route(f"{each}/metadata", self.metadata) for each in model),
            *(Route(f"{each}:predict", self.predict, methods=["POST"]) for each in model),
            *(Route(each, self.status) for each in model),
        ]
        routes += [Route(self._predict, self.predict, methods=["POST"])] if self._predict else []
        return [*routes, Route(self._health, self.health)] if self._health else routes

    async def health(self, _: Request) -> Response:
        """Whether every model could take a request."""
        if not self._service.is_ready:
            raise Refusal(503, "A queue is full.", retry_after="1")
        return JSONResponse({"ready": True})

    async def status(self, request: Request) -> Response:
        """The versions of a model."""
        served, _ = self._found(request)
        version = request.path_params.get("version")
        versions = [version] if version else [*self._service.models[served.name]]
        ok = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return JSONResponse({"model_version_status": [{"version": each, **ok} for each in versions]})

    async def metadata(self, request: Request) -> Response:
        """What a model takes and returns."""
        served, first = self._found(request)
        signatures = {_DEFAULT: first, **{task: task for task in served.tasks}}
        said = {name: _signature(served, task) for name, task in signatures.items()}
        spec = {"name": request.path_params["name"], "signature_name": "", "version": served.version}
        return JSONResponse({"model_spec": spec, "metadata": {"signature_def": {"signature_def": said}}})

    async def predict(self, request: Request) -> Response:
        """What a model makes of instances, or of inputs by name."""
        served, first = self._found(request)
        asked: dict[str, Any] = {}

        def prepare(body: bytes) -> tuple[Kind, Arrays]:
            said = parsed(body)
            check_keys("The request", said, ("signature_name", "instances", "inputs", "parameters"))
            signature, is_rows = said.get("signature_name", _DEFAULT), "instances" in said
            if is_rows == ("inputs" in said) or said.get("parameters"):
                raise Refusal(400, "Expected instances or inputs, and no parameters.")
            task = first if signature in ("", _DEFAULT) else served.known(signature)
            asked.update(task=task, is_rows=is_rows)
            most = self._service.limits.batch.rows
            columns = _of_rows(said["instances"], most) if is_rows else _of_columns(said["inputs"])
            given = {name: _typed(name, values, served, most) for name, values in columns.items()}
            return settled(self._service, served, task, given)

        found = await self._service.answer(request, served, prepare)
        columns = {each.name: lists(each.name, found[each.name]) for each in served.tasks[asked["task"]].returns}
        if not asked["is_rows"]:
            return JSONResponse({"outputs": columns})
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return JSONResponse({"predictions": rows})

    def _found(self, request: Request) -> tuple[Served, str]:
        """The model and the task that an address names; the first model for a route without a name."""
        name = request.path_params.get("name") or self._service.every[0].name
        return self._service.find_task(name, request.path_params.get("version"))


def vertex() -> dict[str, str]:
    """The routes that Vertex AI names in the environment of a container."""
    return {"health": os.environ.get("AIP_HEALTH_ROUTE", ""), "predict": os.environ.get("AIP_PREDICT_ROUTE", "")}


def _signature(served: Served, task: str) -> dict[str, Any]:
    takes = [*served.tasks[task].takes, Tensor(IMAGES, "string", (-1,))]
    parts = {"inputs": takes, "outputs": served.tasks[task].returns}
    said = {part: {each.name: _described(each) for each in tensors} for part, tensors in parts.items()}
    return {**said, "method_name": "tensorflow/serving/predict"}


def _described(tensor: Tensor) -> dict[str, Any]:
    sides = [{"size": str(side), "name": ""} for side in tensor.shape]
    return {
        "dtype": _TYPES[tensor.dtype],
        "tensor_shape": {"dim": sides, "unknown_rank": False},
        "name": f"{tensor.name}:0",
    }


# --- requests --------------------------------------------------------------------------------------------------------


def _of_rows(instances: Any, most: int) -> dict[str, list[Any]]:
    """The values of each input, of a list with an instance for each image.

    Raises:
        Refusal: no such list, or instances of several kinds.
    """
    if not isinstance(instances, list) or not 0 < len(instances) <= most:
        raise Refusal(400, f"instances: expected a list of 1 to {most}.")
    rows = [each if isinstance(each, dict) and "b64" not in each else {_only(each): each} for each in instances]
    names = [*rows[0]]
    if any({*row} != {*names} for row in rows):
        raise Refusal(400, "instances: expected the same inputs in each.")
    return {name: [row[name] for row in rows] for name in names}


def _of_columns(inputs: Any) -> dict[str, list[Any]]:
    """The values of each input, of inputs by name, or of the only one.

    Raises:
        Refusal: neither.
    """
    if isinstance(inputs, list) and inputs:
        inputs = {_only(inputs[0]): inputs}
    if not isinstance(inputs, dict) or not all(isinstance(each, list) and each for each in inputs.values()):
        raise Refusal(400, "inputs: expected lists by name, or a list.")
    return inputs


def _only(value: Any) -> str:
    """Which input a value is of, where no name is given."""
    return IMAGES if isinstance(value, dict) else PIXELS


def _typed(name: str, values: list[Any], served: Served, most: int) -> Any:
    """The values of an input as an array, or as the bytes of files.

    Raises:
        Refusal: they are neither.
    """
    if not any(isinstance(each, dict) for each in values):
        if name == IMAGES:
            return numbers(name, values, np.dtype(np.uint8))
        return numbers(short(name), values, served.pixel_dtype if name == PIXELS else np.dtype(np.float32))
    if len(values) > most:
        raise Refusal(413, f"{short(name)}: expected at most {most} images, got {len(values)}.", "too_many_images")
    if name != IMAGES or any(not isinstance(each, dict) or [*each] != ["b64"] for each in values):
        raise Refusal(400, f'{short(name)}: expected numbers, or of {IMAGES} {{"b64": "…"}} for each.')
    try:
        return [b64decode(each["b64"], validate=True) for each in values]
    except (ValueError, TypeError):
        raise Refusal(400, f"{IMAGES}: a text is not base64.") from None
