"""The OpenAPI document: written by hand, for every sentence in it is meant for a person."""

from collections.abc import Mapping
from typing import Any

from scaleseg import __version__
from scaleseg.server.answers import MEDIA
from scaleseg.server.asked import FUSIONS, MOST_PIXELS, OUTPUTS
from scaleseg.server.models import Served
from scaleseg.server.prometheus import MEDIA as METRICS
from scaleseg.server.settings import Settings
from scaleseg.server.upload import FIELD

__all__ = ["document"]

WHY = {
    "400": "There is no image or more than one, it is damaged, or a parameter is wrong.",
    "401": "A token is needed, or it is another one.",
    "403": "The request comes from a page of another site.",
    "404": "There is no such thing here.",
    "405": "This is not done here; the header Allow says what is.",
    "408": "The request's body came too slowly.",
    "413": "The request has too many bytes, or the image too many pixels.",
    "415": "This is no image of a kind that is read.",
    "421": "The header Host is none of this server's names.",
    "500": "The server failed; its log says why.",
    "503": "The server has as much to do as it takes, or is about to end; Retry-After says when to come again.",
    "504": "The image took too long.",
}
"""What each status means that is not a result."""

EVERYWHERE = ("421", "500")


def document(models: Mapping[str, Served], settings: Settings) -> dict[str, Any]:
    """The document of a server with these models. Where a token is needed it does not name them."""
    guarded = settings.token is not None
    token: dict[str, Any] = {"security": [{"token": []}]} if guarded else {}
    counts = {METRICS: {"schema": {"type": "string"}}}
    about_models = _get("The models, their classes and scales, and the limits.", _json("Models"), guarded)
    health = _get("Whether requests are taken; 503 while the server ends.", _status())
    health["responses"]["503"] = {"description": "The server is about to end.", "content": _status()}
    components: dict[str, Any] = {"schemas": {"Error": _ERROR, "Models": _MODELS, "Result": _RESULT}}
    if guarded:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "scaleseg",
            "version": __version__,
            "summary": "Scale-aware semantic segmentation: which class is where, and which scale was believed.",
        },
        "paths": {
            "/v1/segment": {"post": {**_segment(models, settings), **token}},
            "/v1/models": {"get": {**about_models, **token}},
            "/healthz": {"get": health},
            "/metrics": {"get": {**_get("Counts for Prometheus.", counts, guarded), **token}},
        },
        "components": components,
    }


def _segment(models: Mapping[str, Served], settings: Settings) -> dict[str, Any]:
    limits = settings.limits
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "properties": {FIELD: {"type": "string", "format": "binary"}},
        "required": [FIELD],
        "additionalProperties": False,
    }
    kinds = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff")
    results = dict.fromkeys(dict.fromkeys(MEDIA.values()), binary)
    results["application/json"] = _json("Result")["application/json"]
    refusals = ("400", "403", "404", "408", "413", "415", "503", "504", *(["401"] if settings.token else []))
    return {
        "operationId": "segment",
        "summary": "Segment one image.",
        "description": (
            f"The image is the body itself, or the file {FIELD} of a form: JPEG, PNG, WebP, BMP or TIFF, at most "
            f"{limits.bytes:,} bytes and {limits.pixels:,} pixels."
        ),
        "parameters": _parameters(models, settings),
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, **dict.fromkeys(kinds, binary)},
        },
        "responses": {"200": {"description": "The result.", "content": results}, **_refusals(refusals)},
    }


def _parameters(models: Mapping[str, Served], settings: Settings) -> list[dict[str, Any]]:
    refinements = sorted({name for model in models.values() for name in model.refinements})
    first = next(iter(models))
    known = {"type": "string"} if settings.token else {"type": "string", "enum": list(models), "default": first}
    number = r"([0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9})"
    return [
        _parameter("model", "The name of a model; the first one if left out.", known),
        _parameter(
            "output",
            "mask, overlay and weights are PNG: class ids with a palette, a drawing, one map a scale. npz and safetensors hold "
            "the score maps and weights of every scale.",
            {"type": "string", "enum": list(OUTPUTS), "default": "mask"},
        ),
        _parameter(
            "fusion",
            "How the scales are merged: as the model was trained, or otherwise from the same scores of each scale.",
            {"type": "string", "enum": list(FUSIONS), "default": "trained"},
        ),
        _parameter(
            "weights",
            "With fusion=weights: a number for each scale, by comma; they are divided by their sum.",
            {"type": "string", "pattern": f"^{number}(,{number})*$", "examples": ["0.5,0.3,0.2"]},
        ),
        _parameter(
            "refine",
            "Sharper edges, after the network; /v1/models says what each model can do.",
            {"type": "string", "enum": refinements, "default": "none"},
        ),
        {
            **_parameter(
                "pixel",
                f"With output=json: row and column of a pixel to tell the numbers of, up to {MOST_PIXELS} times.",
                {
                    "type": "array",
                    "maxItems": MOST_PIXELS,
                    "items": {"type": "string", "pattern": "^[0-9]{1,6},[0-9]{1,6}$", "examples": ["120,64"]},
                },
            ),
            "style": "form",
            "explode": True,
        },
    ]


def _parameter(name: str, about: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": about, "schema": dict(schema)}


def _get(about: str, content: Mapping[str, Any], guarded: bool = False) -> dict[str, Any]:
    found = {"200": {"description": "As asked.", "content": dict(content)}}
    return {"summary": about, "responses": {**found, **_refusals(["401"] if guarded else [])}}


def _refusals(statuses: tuple[str, ...] | list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in sorted({*statuses, *EVERYWHERE}):
        found[status] = {"description": WHY[status], "content": _json("Error")}
        if status == "503":
            found[status]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        if status == "401":
            found[status]["headers"] = {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}}
    return found


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _status() -> dict[str, Any]:
    words = {"type": "string", "enum": ["ok", "ending"]}
    return {"application/json": {"schema": _object({"status": words})}}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object that has all of these and nothing else."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}


def _by_class() -> dict[str, Any]:
    """A number for each class, by its name."""
    return {"type": "object", "additionalProperties": _SHARE}


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1.000001}
_SCALE = {"type": "number", "exclusiveMinimum": 0}

_ERROR = _object({"error": {**_TEXT, "description": "What was given, what is accepted, what to do."}})

_MODELS = _object({
    "models": _array(_object({
        "name": _TEXT, "classes": _array(_TEXT), "colours": _array(_array(_COUNT)), "scales": _array(_SCALE),
        "fusion": _TEXT, "refinements": _array(_TEXT), "weights_per_class": {"type": "boolean"},
    })),
    "samples": _array(_object({"name": _TEXT, "credit": _TEXT})),
    "limits": _object({"bytes": _COUNT, "pixels": _COUNT}),
    "token_required": {"type": "boolean"},
    "version": _TEXT,
})  # fmt: skip

_RESULT = _object({
    "model": _TEXT, "size": {**_array(_COUNT), "description": "Rows, columns."}, "classes": _array(_TEXT),
    "scales": _array(_SCALE), "fusion": _TEXT, "refine": _TEXT,
    "shares": {**_by_class(), "description": "The part of the image that each class covers; those that are there."},
    "mean_weights": _array(_SHARE),
    "pixels": _array(_object({
        "row": _COUNT, "column": _COUNT, "label": _TEXT, "probabilities": _by_class(), "weights": _array(_SHARE),
        "per_scale": _array(_object({"scale": _SCALE, "label": _TEXT, "probabilities": _by_class()})),
    })),
    "note": _TEXT,
    "seconds": {"type": "number", "minimum": 0},
})  # fmt: skip
