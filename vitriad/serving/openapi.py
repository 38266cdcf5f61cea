"""What the server says about itself: the OpenAPI document, and the page with examples."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from vit_core.installing import own_version
from vitriad.serving.served import Served

_TASKS = {
    "classify": ("The best classes of an image", {"top_k": ("integer", "classes to name, 5 unless given")}),
    "embed": ("Features of an image", {"features": ("string", "class_token, patch_mean, or both with a comma")}),
    "reconstruct": (
        "What a masked autoencoder paints into gaps; a PNG file for `Accept: image/png`",
        {
            "seed": ("integer", "which patches are hidden, 0 unless given"),
            "ratio": ("number", "share of hidden patches; the model's unless given"),
            "removed": ("string", "in place of those: a digit for each patch, 1 for those to hide"),
        },
    ),
}
_WORDS = {
    "/live": "Whether the server is there",
    "/ready": "Whether it could take a request now",
    "/metrics": "Figures for Prometheus",
    "/models": "The models, their versions and tasks",
}
_ANSWERS = {
    "200": "The answer",
    "401": "A key is needed",
    "404": "No such model, or it does not do that",
    "413": "The body is too large",
    "422": "The image or a parameter cannot be used",
    "429": "The queue is full; Retry-After says when to come back",
    "504": "There was no answer in time",
}


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    problem = {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    answers = {
        status: {"description": text} if status == "200" else {**problem, "description": text}
        for status, text in _ANSWERS.items()
    }
    binary: dict[str, Any] = {"schema": {}}
    form = {"schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}}
    body = {"required": True, "content": {"image/*": binary, "multipart/form-data": form}}
    paths: dict[str, Any] = {
        path: {"get": {"summary": text, "responses": {"200": {"description": text}}}} for path, text in _WORDS.items()
    }
    for task, (text, own) in _TASKS.items():
        known = {"model": ("string", "which model"), "version": ("string", "which version of it"), **own}
        parameters = [
            {"name": name, "in": "query", "description": said, "schema": {"type": kind}}
            for name, (kind, said) in known.items()
        ]
        paths[f"/{task}"] = {
            "post": {"summary": text, "parameters": parameters, "requestBody": body, "responses": answers}
        }
    code = {"type": "object", "properties": {name: {"type": "string"} for name in ("code", "message")}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "vitriad serve", "version": own_version()},
        "paths": paths,
        "components": {
            "schemas": {"Error": {"type": "object", "properties": {"error": code}}},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }


def page(models: Sequence[Served], address: str) -> str:
    """A page of HTML: the models, and what to type.

    Args:
        models: all of them.
        address: of the server, as the client names it.
    """
    rows = "".join(
        f"<tr><td>{escape(each.name)}<td>{escape(each.version)}<td>{', '.join(each.tasks)}"
        f"<td>{each.size[0]}x{each.size[1]}<td>{escape(each.engine)}"
        for each in models
    )
    lines = [
        f"curl --data-binary @image.png {address}{task}?model={each.name}" for each in models for task in each.tasks
    ]
    lines += [f"curl -F image=@image.png '{address}{next(iter(models[0].tasks))}'", f"curl {address}models"]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>vitriad serve</title>'
        "<h1>vitriad serve</h1><table><tr><th>model<th>version<th>tasks<th>images<th>engine"
        f"{rows}</table><h2>Ask it</h2><pre>{escape(chr(10).join(lines))}</pre>"
        '<p><a href="/openapi.json">OpenAPI document</a> · <a href="/metrics">figures for Prometheus</a></html>\n'
    )
