"""The API's description, in OpenAPI 3.1, made of what the API itself is made of.

Rules:
- Schemas come from the types that take and give the values, statuses from the errors: what is
  said twice comes apart. Only which operation does what is told here.
- Every status that an operation can have is named, with the kinds of problem behind it.
- A test holds it against the routes; another lets a client that only knows this document loose on
  the whole service.
"""

import inspect
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from webapp import errors
from webapp.answers import Answer, AnswerLine, ProblemLine
from webapp.api import Health, Inspected, ModelQuery, Models, Query, Scale
from webapp.archives import MAX_FILES
from webapp.envelope import Problem
from webapp.errors import WebError
from webapp.many import MEDIA as NDJSON
from webapp.status import ServiceStatus
from webapp.uploads import CLASSIFY, INSPECT, JsonPicture

Document = dict[str, Any]

IMAGES: Final = ("jpeg", "png", "webp", "avif", "gif", "bmp")
ARCHIVES: Final = ("application/zip", "application/x-tar", "application/gzip")
PROBLEM: Final = "application/problem+json"
_SCHEMAS: Final = "#/components/schemas/"
_HEADERS: Final = "#/components/headers/"
_KEY: Final = "apiKey"


class Kind(NamedTuple):
    """One kind of problem, as a `Problem` shows it."""

    status: int
    kind: str
    title: str


def _kinds(*classes: type[WebError]) -> tuple[Kind, ...]:
    return tuple(Kind(error.status, error.kind, error.title) for error in classes)


_EVERYWHERE: Final = _kinds(
    errors.BadRequest,
    errors.TooSlow,
    errors.TooManyAtOnce,
    errors.HeadTooLong,
    errors.NoRoom,
    errors.WebError,
)
_FROM_BROKER: Final = _kinds(errors.Unavailable, errors.ProtocolError)
_OF_FILES: Final = (
    *_kinds(errors.UploadTooLarge, errors.Overloaded, errors.UnknownModel),
    *(Kind(*refusal) for refusal in errors.IMAGE_REFUSALS.values()),
)
_OF_PICTURES: Final = (*_OF_FILES, *_kinds(*errors.FAILURES.values()))


class _Operation(NamedTuple):
    path: str
    method: str
    name: str
    summary: str
    description: str
    gives: type[msgspec.Struct] | str
    """The type of the JSON that is given, or another media type."""
    kinds: tuple[Kind, ...] = ()
    query: type[msgspec.Struct] | None = None
    takes: Literal["", "picture", "pictures"] = ""
    lines: tuple[type[msgspec.Struct], ...] = ()
    """What a line may be, where many answers are given one by one."""
    guarded: bool = False


_OPERATIONS: Final = (
    _Operation(
        CLASSIFY,
        "post",
        "classify",
        "What is in a picture, or in many",
        "One: send the file itself as the body, whatever it is called, as the only file of a form, "
        "or in JSON. "
        f"Many: send up to {MAX_FILES} files in a form, or a ZIP, TAR or TAR.GZ archive of them. A "
        "line of JSON comes for each as soon as it is done, so in any order: an AnswerLine, or a "
        "ProblemLine for one that fails, which fails alone. Each has its own time, which begins at "
        "its turn; the priority is bulk unless another is asked for. If application/x-ndjson is "
        "what you accept, one picture is answered in the same way.",
        Answer,
        (
            *_OF_PICTURES,
            *_FROM_BROKER,
            *_kinds(errors.TooManyPictures, errors.ArchiveRefused),
        ),
        query=Query,
        takes="pictures",
        lines=(AnswerLine, ProblemLine),
        guarded=True,
    ),
    _Operation(
        INSPECT,
        "post",
        "inspect",
        "What a picture is, without what is in it",
        "Send one as to classify. It is decoded and prepared as it would be for the model, and "
        "gets the same problems and warnings, but no model looks at it.",
        Inspected,
        (*_OF_FILES, *_FROM_BROKER),
        query=ModelQuery,
        takes="picture",
        guarded=True,
    ),
    _Operation(
        "/api/v1/models",
        "get",
        "models",
        "Which models there are",
        "What each wants its pictures to be, and which replicas of it are alive.",
        Models,
        _FROM_BROKER,
        guarded=True,
    ),
    _Operation(
        "/api/v1/status",
        "get",
        "status",
        "What goes on",
        "What waits, who works, and how long it took. Numbers that count upwards do so from the "
        "broker's start: what happened between two answers is their difference. A new answer is to "
        "be had twice a second.",
        ServiceStatus,
        _FROM_BROKER,
        guarded=True,
    ),
    _Operation(
        "/api/v1/scale",
        "get",
        "scale",
        "How many replicas it takes",
        "What was measured lately, and how many replicas follow from it: by Little's law those "
        "that are busy, and as many more as keep waits in the queue below the objective. It is "
        "about this moment, so wait a while before you take a replica away.",
        Scale,
        _FROM_BROKER,
        guarded=True,
    ),
    _Operation(
        "/api/openapi.json",
        "get",
        "description",
        "This description",
        "For programs that make clients, forms or tests of it.",
        "application/json",
    ),
    _Operation(
        "/api/docs",
        "get",
        "docs",
        "This description as a page",
        "For people.",
        "text/html",
    ),
    _Operation(
        "/healthz",
        "get",
        "healthz",
        "Whether the web tier is alive",
        "It says nothing of the models.",
        Health,
    ),
    _Operation(
        "/readyz",
        "get",
        "readyz",
        "Whether a picture could be classified",
        "Which replicas of the default model are alive; 503 if none is.",
        Health,
        _FROM_BROKER,
    ),
)


def document(*, keyed: bool) -> Document:
    """The description; with ``keyed``, of an API that asks for keys."""
    types = [
        *dict.fromkeys(o.gives for o in _OPERATIONS if not isinstance(o.gives, str)),
        *dict.fromkeys(line for o in _OPERATIONS for line in o.lines),
        JsonPicture,
        Problem,
    ]
    _, schemas = msgspec.json.schema_components(types, ref_template=_SCHEMAS + "{name}")
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"]).replace("``", "")
    components: Document = {"schemas": schemas, "headers": _headers()}
    if keyed:
        components["securitySchemes"] = {
            _KEY: {"type": "http", "scheme": "bearer", "description": "Ask whoever runs this."}
        }
    paths: Document = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, keyed)
    described: Document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Sightline",
            "version": "1",
            "summary": "Names what is in a picture.",
            "description": "Every error is a problem document (RFC 9457): type, which never "
            "changes, title, status, detail (what is wrong with this request), remedy (what would "
            "be accepted) and instance (the id of the request). Clients of KServe and Triton find "
            "the Open Inference Protocol under /v2; it has a specification of its own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": components,
    }
    # As JSON has it: msgspec leaves defaults as they are in Python, tuples for one.
    return msgspec.json.decode(msgspec.json.encode(described), type=Document)


def _described(operation: _Operation, keyed: bool) -> Document:
    kinds = (*operation.kinds, *_EVERYWHERE)
    if guarded := keyed and operation.guarded:
        kinds += _kinds(errors.Unauthorised)
    described: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description,
    }
    if operation.query:
        described["parameters"] = list(_parameters(operation.query))
    if operation.takes:
        described["requestBody"] = _body(many=operation.takes == "pictures")
    described["responses"] = {"200": _success(operation), **_problems(kinds)}
    if guarded:
        described["security"] = [{_KEY: []}]
    return described


def _parameters(query: type[msgspec.Struct]) -> Iterable[Document]:
    for field in msgspec.structs.fields(query):
        schema = msgspec.json.schema(field.type)
        description = schema.pop("description")
        yield {
            "name": field.name,
            "in": "query",
            "description": description,
            "schema": schema
            if field.default is msgspec.UNSET
            else schema | {"default": field.default},
        }


def _body(*, many: bool) -> Document:
    file: Document = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": file, "minItems": 1}
    form = {
        "type": "object",
        "properties": {"image": files if many else file},
        "required": ["image"],
    }
    content: Document = {f"image/{name}": {} for name in IMAGES}
    content["multipart/form-data"] = {"schema": form}
    content["application/json"] = {"schema": {"$ref": _SCHEMAS + JsonPicture.__name__}}
    if many:
        content |= {media: {} for media in ARCHIVES}
    return {"required": True, "content": content}


def _success(operation: _Operation) -> Document:
    if isinstance(operation.gives, str):
        media = operation.gives
        schema = {"type": "string" if media.startswith("text/") else "object"}
    else:
        media, schema = "application/json", {"$ref": _SCHEMAS + operation.gives.__name__}
    content: Document = {media: {"schema": schema}}
    if operation.lines:
        line = {"anyOf": [{"$ref": _SCHEMAS + kind.__name__} for kind in operation.lines]}
        content[NDJSON] = {"schema": line}
    return {
        "description": operation.summary,
        "headers": _sent("X-Request-Id", "Server-Timing"),
        "content": content,
    }


def _problems(kinds: Iterable[Kind]) -> Document:
    """One response for each status, in order, that names every kind of problem behind it."""
    found: dict[int, dict[str, str]] = {}
    for kind in sorted(set(kinds)):
        found.setdefault(kind.status, {})[kind.kind] = kind.title
    return {
        str(status): {
            "description": "; ".join(f"{title} ({name})" for name, title in named.items()),
            "headers": _sent(*(["Retry-After"] if status in (429, 503) else [])),
            "content": {PROBLEM: {"schema": {"$ref": _SCHEMAS + Problem.__name__}}},
        }
        for status, named in found.items()
    }


def _sent(*names: str) -> Document:
    return {name: {"$ref": _HEADERS + name} for name in names}


def _headers() -> Document:
    return {
        "X-Request-Id": {
            "description": "The id of the request: the one that was sent, or a new one.",
            "required": True,
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        },
        "Server-Timing": {
            "description": "Where the time went, in milliseconds.",
            "required": True,
            "schema": {"type": "string"},
        },
        "Retry-After": {
            "description": "So many seconds until it is worth to try again.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        },
    }
