"""Takes the picture, or the pictures, out of an HTTP request.

Rules:
- Nothing is written to disk, and the name that the sender gave a file is only given back.
- No declared type is believed, except that a multipart body has to be taken apart. What is a
  picture by its first bytes is one, and so is an archive.
- The limit on size is kept while reading, whatever length was announced, if any.
"""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Annotated, Final, NamedTuple, Self

import msgspec
from flask import Request, request
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from imaging import sniff
from webapp.archives import MAX_FILES, Upload, is_archive, printable, unpacked
from webapp.config import Config
from webapp.errors import BadRequest, TooManyPictures, WebError, upload_too_large

CLASSIFY: Final = "/api/v1/classify"
INSPECT: Final = "/api/v1/inspect"
AROUND_BYTES: Final = 64 * 1024
"""For what is around a picture: the head of a part, or the rest of the JSON."""
SEND_AGAIN: Final = "Send it again, in one piece or in valid chunks."
_JSON: Final = 'Send {"image": "..."} with the file in base64, or as a data URL.'


class InMemoryRequest(Request):
    """A request whose uploaded files stay in memory; Flask's own spools them to disk."""

    def _get_file_stream(self, *_args: object, **_kwargs: object) -> IO[bytes]:
        return BytesIO()


def picture_in_form(field: str) -> bytes:
    """The file in ``field`` of the form that is being handled.

    Raises:
        BadRequest: There is no such field, or no file was chosen for it.
        UploadTooLarge: The form is longer than the limit.
    """
    with _reading():
        file = request.files.get(field)
    if file is None:
        raise BadRequest(
            f"The form has no file in a field called {field!r}.",
            f"Send the picture as multipart/form-data in the field {field!r}.",
        )
    data: bytes = file.read()
    if not data:
        raise BadRequest("No picture was chosen.", "Choose a picture first.")
    return data


class Limits(NamedTuple):
    """How long what is sent may be, in bytes."""

    picture: int
    many: int
    """All of a request with many pictures."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """The limits that ``config`` sets."""
        return cls(config.max_upload_bytes, config.max_batch_bytes)

    @property
    def alone(self) -> int:
        """All of a request with one picture, in JSON if that is how it comes."""
        return self.picture * 4 // 3 + AROUND_BYTES

    @property
    def whole(self) -> int:
        """All of a request with one picture or many."""
        return max(self.many, self.alone)

    def by_target(self) -> dict[bytes, int]:
        """The limits of those paths at which more than one bare picture is taken."""
        return {CLASSIFY.encode(): self.whole, INSPECT.encode(): self.alone}


class JsonPicture(msgspec.Struct, frozen=True):
    """A picture in JSON."""

    image: Annotated[str, msgspec.Meta(extra_json_schema={"format": "byte"})]
    """The file in base64, or a data URL that has it so."""


def picture_in_body(limits: Limits) -> bytes:
    """The body of the request that is being handled: a picture, the only file of a form, or JSON.

    Raises:
        BadRequest: The form does not hold exactly one file, or the JSON no picture.
        UploadTooLarge: The body or the picture is longer than its limit.
    """
    body = _body(limits.alone)
    if isinstance(body, bytes):
        return _bounded(_bare(body), limits)
    if len(body) != 1:
        raise BadRequest(
            f"The form holds {len(body) or 'no'} files.",
            "Send exactly one: curl -F image=@photo.jpg, or the bare file as the body.",
        )
    return _bounded(body[0].read(), limits)


def pictures_in_body(limits: Limits, *, always_many: bool) -> bytes | Iterator[Upload]:
    """What `picture_in_body` gives; or, one after the other, the files of a form or an archive.

    With ``always_many`` one picture comes as many do, too.

    Raises:
        BadRequest: The form holds no file, or the JSON no picture.
        UploadTooLarge: The body, a lonely picture or what an archive unpacks to is too long.
        TooManyPictures: There are more than can be taken at once.
        ArchiveRefused: The archive cannot be unpacked.
    """
    body = _body(limits.whole)
    if isinstance(body, bytes):
        if is_archive(body):
            return unpacked(body, limits.picture)
        picture = _bounded(_bare(body), limits)
        return iter([Upload("", picture)]) if always_many else picture
    if not body:
        raise BadRequest("The form holds no files.", "Send some: curl -F image=@photo.jpg.")
    if len(body) > MAX_FILES:
        raise TooManyPictures(f"The form holds {len(body)} files.")
    if len(body) == 1 and not always_many:
        return _bounded(body[0].read(), limits)
    # Flask closes the files before the answer is streamed.
    files = [(file.filename or "", file.read()) for file in body]
    return (Upload(printable(name), _item(data, limits)) for name, data in files)


def _item(data: bytes, limits: Limits) -> bytes | WebError:
    return data if len(data) <= limits.picture else upload_too_large(limits.picture)


def _bounded(picture: bytes, limits: Limits) -> bytes:
    if len(picture) > limits.picture:
        raise upload_too_large(limits.picture)
    return picture


def _body(limit: int) -> bytes | list[FileStorage]:
    """The files of a form, or the whole body where it is none."""
    request.max_content_length = limit + 1
    with _reading():
        if request.mimetype != "multipart/form-data":
            return _bare_body()
        return [file for _, file in request.files.items(multi=True)]


def whole_body() -> bytes:
    """The body of the request that is being handled, as it came.

    Raises:
        UploadTooLarge: It is longer than the limit.
    """
    with _reading():
        return _bare_body()


def _bare_body() -> bytes:
    """As it came: Flask's own way copies it piece by piece."""
    limit = request.max_content_length or 0  # The first length that is too much.
    announced = request.content_length
    if announced is not None and announced >= limit:
        raise RequestEntityTooLarge
    body: bytes = request.environ["wsgi.input"].read(limit if announced is None else announced)
    if len(body) == limit:
        # A chunked body that is longer ends here without a word.
        raise RequestEntityTooLarge
    return body


def _bare(body: bytes) -> bytes:
    """The picture in a body that is no form."""
    if not body or sniff(body):
        return body
    # No picture begins with a brace.
    if request.mimetype != "application/json" and body[:64].lstrip()[:1] != b"{":
        return body
    try:
        text = msgspec.json.decode(body, type=JsonPicture).image
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRequest(f"The JSON cannot be taken: {error}.", _JSON) from None
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise BadRequest("The data URL is not in base64.", _JSON)
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise BadRequest("The image is not base64.", _JSON) from None


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except RequestEntityTooLarge:
        raise upload_too_large(request.max_content_length or 0) from None
    except ParseException as error:  # From gunicorn, for a body in malformed chunks.
        raise BadRequest(f"The body cannot be read: {error}.", SEND_AGAIN) from None
    except NoMoreData:  # From gunicorn, for a body that ends within a chunk.
        raise BadRequest("The body ends too soon.", SEND_AGAIN) from None
