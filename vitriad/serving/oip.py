"""The Open Inference Protocol, version 2, over HTTP: health, metadata and `infer`, with tensors as JSON or binary."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vit_core.installing import own_version
from vit_core.plain_values import short
from vit_core.tensors import Array
from vitriad.serving.batching import Arrays
from vitriad.serving.served import Kind, Served, Tensor
from vitriad.serving.service import Service
from vitriad.serving.wire import DTYPES, IMAGES, check_keys, datatype, lists, numbers, parsed, settled, shape_of
from vitriad.web import Refusal

HEALTH = ("/v2/health/live", "/v2/health/ready")
_HEADER = "inference-header-content-length"  # bytes of JSON, before those of the binary tensors
_ONLY_BINARY = ("FP16", "BF16")  # which JSON does not have


class OpenInference:
    """What answers the protocol. A task beside the first of a model is called like `digits-vit.embed`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """The addresses."""
        model = [f"/v2/models/{{name}}{version}" for version in ("", "/versions/{version}")]
        return [
            Route("/v2", self.server),
            Route("/v2/health/live", self.alive),
            Route("/v2/health/ready", self.ready),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            *(Route(each, self.metadata) for each in model),
            *(Route(f"{each}/ready", self.model_ready) for each in model),
            *(Route(f"{each}/config", self.config) for each in model),
            *(Route(f"{each}/infer", self.infer, methods=["POST"]) for each in model),
        ]

    async def server(self, _: Request) -> Response:
        """What this is."""
        said = {
            "name": "vitriad",
            "version": own_version(),
            "extensions": ["binary_tensor_data", "model_configuration"],
        }
        return JSONResponse(said)

    async def alive(self, _: Request) -> Response:
        """Whether it is there."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Whether it could take a request for every model."""
        return JSONResponse({"ready": self._service.is_ready}, 200 if self._service.is_ready else 503)

    async def index(self, _: Request) -> Response:
        """The models, by the names that this protocol has for their tasks."""
        return JSONResponse(
            [
                {"name": name, "version": each.version, "state": "READY", "reason": ""}
                for each in self._service.every
                for name in _names(each)
            ]
        )

    async def model_ready(self, request: Request) -> Response:
        """Whether a model is there."""
        served, _ = self._found(request)
        return JSONResponse({"name": served.name, "ready": True})

    async def metadata(self, request: Request) -> Response:
        """What a model takes and returns."""
        served, task = self._found(request)
        return JSONResponse(
            {
                "name": request.path_params["name"],
                "versions": [*self._service.models[served.name]],
                "platform": f"vitriad ({served.engine})",
                "inputs": [_described(each) for each in served.tasks[task].takes] + [_FILES],
                "outputs": [_described(each) for each in served.tasks[task].returns],
            }
        )

    async def config(self, request: Request) -> Response:
        """The same, and how many images a request may have, as clients of Triton ask for it."""
        served, task = self._found(request)
        parts = {
            "input": [*served.tasks[task].takes, Tensor(IMAGES, "string", (-1,))],
            "output": served.tasks[task].returns,
        }
        said: dict[str, Any] = {
            name: [
                {
                    "name": each.name,
                    "data_type": f"TYPE_{_datatype(each).replace('BYTES', 'STRING')}",
                    "dims": each.shape,
                }
                for each in tensors
            ]
            for name, tensors in parts.items()
        }
        rows = self._service.limits.batch.rows
        return JSONResponse(
            {"name": request.path_params["name"], "platform": "vitriad", "max_batch_size": rows, **said}
        )

    async def infer(self, request: Request) -> Response:
        """What a model makes of tensors."""
        served, task = self._found(request)
        asked: dict[str, Any] = {}
        header = request.headers.get(_HEADER)

        def prepare(body: bytes) -> tuple[Kind, Arrays]:
            said, binary = _split(body, header)
            asked.update(_read(said, [each.name for each in served.tasks[task].returns]))
            given = _inputs(said, binary, self._service.limits.web.body_bytes)
            return settled(self._service, served, task, given)

        found = await self._service.answer(request, served, prepare)
        said = {"model_name": request.path_params["name"], "model_version": served.version, "id": asked["id"]}
        return _answer(said, found, asked["outputs"])

    def _found(self, request: Request) -> tuple[Served, str]:
        """The model and the task that an address names."""
        return self._service.find_task(request.path_params["name"], request.path_params.get("version"))


_FILES = {"name": IMAGES, "datatype": "BYTES", "shape": [-1]}


def _names(served: Served) -> list[str]:
    return [served.name, *(f"{served.name}.{task}" for task in [*served.tasks][1:])]


def _datatype(tensor: Tensor) -> str:
    return "BYTES" if tensor.dtype == "string" else datatype(tensor.dtype)


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": _datatype(tensor), "shape": tensor.shape}


# --- requests --------------------------------------------------------------------------------------------------------


def _split(body: bytes, header: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON of a body, and the binary tensors behind it.

    Args:
        body: of the request.
        header: how long the JSON is, as the request says it; None if all of it is.

    Raises:
        Refusal: it is not.
    """
    if header is None:
        return parsed(body), b""
    if not (header.isascii() and header.isdecimal() and len(header) < 12 and int(header) <= len(body)):
        raise Refusal(400, f"{_HEADER}: expected the length of the JSON, got {short(header)}.")
    return parsed(body[: int(header)]), body[int(header) :]


def _read(said: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The id of a request, and which outputs it wants: name -> whether binary."""
    check_keys("The request", said, ("id", "parameters", "inputs", "outputs"))
    name = said.get("id", "")
    if not isinstance(name, str) or len(name) > 200:
        raise Refusal(400, "id: expected a text of at most 200 characters.")
    usual = _flag(_parameters("The request", said, ("binary_data_output",)), "binary_data_output")
    outputs = {}
    for each in _objects("outputs", said.get("outputs", [{"name": name} for name in known])):
        check_keys("An output", each, ("name", "parameters"))
        if each.get("name") not in known:
            raise Refusal(400, f"outputs: expected some of {', '.join(known)}, got {short(each.get('name'))}.")
        parameters = _parameters("An output", each, ("binary_data",))
        outputs[each["name"]] = _flag(parameters, "binary_data", usual)
    return {"id": name, "outputs": outputs or dict.fromkeys(known, usual)}


def _inputs(said: Mapping[str, Any], binary: bytes, most: int) -> dict[str, Any]:
    """The inputs of a request by name: arrays, and files as a list of bytes.

    Args:
        said: the JSON.
        binary: the bytes of the binary tensors, in order.
        most: numbers of a tensor.

    Raises:
        Refusal: they are not what they are said to be.
    """
    found: dict[str, Any] = {}
    place = 0
    for each in _objects("inputs", said.get("inputs")):
        check_keys("An input", each, ("name", "datatype", "shape", "parameters", "data"))
        name, kind = each.get("name"), str(each.get("datatype"))
        if not isinstance(name, str) or name in found:
            raise Refusal(400, f"inputs: expected names, each once, got {short(name)}.")
        if kind not in DTYPES and kind != "BYTES":
            raise Refusal(400, f"{short(name)}: expected one of {', '.join(DTYPES)}, BYTES, got {short(kind)}.")
        shape = shape_of(short(name), each.get("shape"), most)
        size = _parameters("An input", each, ("binary_data_size",)).get("binary_data_size")
        if size is None:
            found[name] = _from_json(short(name), kind, shape, each.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - place or "data" in each:
            raise Refusal(400, f"{short(name)}: binary_data_size {short(size)} does not fit the request.")
        found[name] = _from_bytes(short(name), kind, shape, binary[place : place + size])
        place += size
    if place != len(binary):
        raise Refusal(400, f"{len(binary) - place} bytes are left that belong to no input.")
    return found


def _from_json(name: str, kind: str, shape: tuple[int, ...], data: Any) -> Any:
    if kind in _ONLY_BINARY:
        raise Refusal(400, f"{name}: {kind} has to be binary.")
    if kind == "BYTES":
        raise Refusal(400, f"{name}: BYTES have to be binary: JSON has texts alone.")
    array = numbers(name, data, DTYPES[kind])
    if array.shape != shape and array.shape != (int(np.prod(shape)),):
        raise Refusal(400, f"{name}: expected numbers of shape {shape}, got {array.shape}.")
    return array.reshape(shape)


def _from_bytes(name: str, kind: str, shape: tuple[int, ...], content: bytes) -> Any:
    if kind == "BYTES":
        texts = _texts(name, content)
        if (len(texts),) != shape:
            raise Refusal(400, f"{name}: expected {shape} texts, got {len(texts)}.")
        return texts
    dtype = DTYPES[kind]
    if len(content) != int(np.prod(shape)) * dtype.itemsize:
        raise Refusal(400, f"{name}: {len(content)} bytes are no {kind} of shape {shape}.")
    return np.frombuffer(content, dtype).reshape(shape)


def _texts(name: str, content: bytes) -> list[bytes]:
    """Texts, each behind its length."""
    found, place = [], 0
    while place < len(content):
        (length,) = struct.unpack_from("<I", content.ljust(place + 4, b"\xff"), place)
        if length > len(content) - place - 4:
            raise Refusal(400, f"{name}: a text is longer than its bytes.")
        found.append(content[place + 4 : place + 4 + length])
        place += 4 + length
    return found


def _objects(name: str, given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or len(given) > 16 or not all(isinstance(each, dict) for each in given):
        raise Refusal(400, f"{name}: expected a list of at most 16 objects.")
    return given


def _parameters(what: str, given: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    parameters = given.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, f"{what}: parameters: expected an object.")
    check_keys(f"{what}: parameters", parameters, known)
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, usual: bool = False) -> bool:
    value = parameters.get(name, usual)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name}: expected true or false, got {short(value)}.")
    return value


# --- answers ---------------------------------------------------------------------------------------------------------


def _answer(said: dict[str, Any], found: Arrays, outputs: Mapping[str, bool]) -> Response:
    """The outputs that were asked for, those that were asked for in bytes behind the JSON."""
    tensors, blobs = [], []
    for name, is_binary in outputs.items():
        array: Array = found[name]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype(array.dtype.name), "shape": array.shape}
        if is_binary:
            blobs.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = lists(name, array.reshape(-1))
        tensors.append(tensor)
    head = json.dumps({**said, "outputs": tensors}, allow_nan=False).encode()
    if not blobs:
        return Response(head, media_type="application/json")
    headers = {_HEADER: str(len(head))}
    return Response(b"".join([head, *blobs]), headers=headers, media_type="application/octet-stream")
