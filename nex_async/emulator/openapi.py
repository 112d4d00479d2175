"""The document at `/openapi.json`: OpenAPI 3.1, made from the routes, the request bodies and the reply models."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from nex_async import routes
from nex_async.emulator.control import check_method
from nex_async.emulator.dispatch import PREFIX
from nex_async.emulator.router import AnyRoute
from nex_async.emulator.shapes import BODIES, MODELS, PATH_PARAMETERS, QUERIES, REPLIES, Schema, ref

if TYPE_CHECKING:
    from nex_async.emulator.server import Emulator

__all__ = ["document", "openapi_json"]

_DESCRIPTION = (
    "The API as the embedded Nex of nex-async carries it out. No field of a reply but an id is promised, ids are strings of"
    " digits or integers beyond 2**53, and unknown fields and values are normal."
)
_ERROR: Schema = {
    "type": "object",
    "description": "Every answer other than success.",
    "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
    "required": ["code", "message"],
}
_ERRORS = {
    400: "The body or a parameter cannot be right; the message names it",
    401: "The key is missing or unknown",
    403: "The key lacks the scope",
    404: "There is nothing of that slug or id",
    410: "The token has expired",
    413: "The body is larger than 10 MiB",
    429: "Too many requests; Retry-After says how long to wait",
    500: "The server failed",
}
_TOKENS = frozenset({"connect_id", "session_id", "job_id", "job_run_id"})
"""Ids that are never digits alone."""


async def document(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET /openapi.json`: for anybody, as there is nothing of the workspace in it."""
    check_method(request, "GET")
    return web.Response(body=openapi_json(), content_type="application/json")


@lru_cache(maxsize=1)
def openapi_json() -> bytes:
    """Return the document."""
    paths: dict[str, Schema] = {}
    for route in routes.ALL:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Nex Developer API", "version": "1", "description": _DESCRIPTION},
            "servers": [{"url": PREFIX}],
            "paths": paths,
            "components": {
                "schemas": {"Error": _ERROR, **_requests(), **_replies()},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, sk-..."}},
            },
        }
    )


def _operation(route: AnyRoute) -> Schema:
    """Return one operation; its scope stands under `security`, the candidates of other documents under `x-scopes`."""
    described: Schema = {
        "operationId": route.name,
        "summary": _summary(route),
        "tags": [route.path.split("/")[2]],
        "security": [{"key": [route.scopes[0]]}],
        "x-scopes": list(route.scopes),
        "x-retry": route.retry,
        "x-extended": route.extended,
        "parameters": _parameters(route),
        "responses": {str(route.status): _success(route), **_failures(route)},
    }
    if route.name in BODIES:
        described["requestBody"] = {"required": True, "content": _json(ref(f"{BODIES[route.name].__name__}Request"))}
    return described


def _summary(route: AnyRoute) -> str:
    """Return the operationId in words: `listObjects` is "List objects"."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", route.name)
    return " ".join(word if word.isupper() else word.lower() for word in words).capitalize().replace("Ai", "AI")


def _parameters(route: AnyRoute) -> list[Schema]:
    in_path = [{"name": name, "in": "path", "required": True, "schema": _path_schema(route, name)} for name in route.params]
    in_query = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in QUERIES.get(route.name, {}).items()
    ]
    return in_path + in_query


def _path_schema(route: AnyRoute, name: str) -> Schema:
    place = "/".join(route.path.split("/")[:4])
    return PATH_PARAMETERS.get(place if name == "id" else name, {"type": "string", "minLength": 1})


def _success(route: AnyRoute) -> Schema:
    if route.name == "streamInsights":
        text = "A connect comment, up to 20 insight.replay events, then insight.batch.created events and keepalive comments"
        return {"description": text, "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    schema = REPLIES.get(route.name)
    if schema is None:
        return {"description": "Done; the body is empty"}
    content = _json(schema)
    if route.name == "getGraph":
        content["text/html"] = {"schema": {"type": "string"}}
    return {"description": "Accepted" if route.status == 202 else "Done", "content": content}


def _failures(route: AnyRoute) -> Schema:
    absent = {404} if not route.params else set[int]()
    absent |= {410} if route.name != "getConnectStatus" else set()
    absent |= {413} if route.name not in BODIES else set()
    return {
        str(status): {"description": text, "content": _json(ref("Error"))}
        for status, text in _ERRORS.items()
        if status not in absent
    }


def _json(schema: Schema) -> dict[str, Schema]:
    return {"application/json": {"schema": schema}}


def _requests() -> dict[str, Schema]:
    """Return the schemas of all request bodies."""
    kinds = dict.fromkeys(BODIES.values())
    _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}Request")
    return {f"{name}Request": {**schema, "title": f"{name}Request"} for name, schema in found.items()}


def _replies() -> dict[str, Schema]:
    """Return the schemas of all replies: the models, and with them what the wire may do to them."""
    _, found = msgspec.json.schema_components(MODELS, ref_template="#/components/schemas/{name}")
    return {name: _loosened(schema) for name, schema in found.items()}


def _loosened(schema: Schema) -> Schema:
    """Return the schema of a model with ids of either type, and null wherever nothing is promised."""
    required = schema.get("required", [])
    properties = {
        name: _property(name, each, promised=name in required)
        for name, each in schema["properties"].items()
        if not name.startswith("__")
    }
    description = schema.get("description", "").partition("\n")[0]
    head: Schema = {"type": "object", "title": schema["title"], "description": description}
    return {**head, "properties": properties, "required": required}


def _property(name: str, schema: Schema, *, promised: bool) -> Schema:
    if (name == "id" or name.endswith("_id")) and name not in _TOKENS:
        return {"type": ["string", "integer"] if promised else ["string", "integer", "null"]}
    loose: dict[str, Any] = {key: value for key, value in schema.items() if key != "default"}
    if promised or not loose or "anyOf" in loose:
        return loose
    if "type" in loose:
        return {**loose, "type": [loose["type"], "null"]}
    return {"anyOf": [loose, {"type": "null"}]}
