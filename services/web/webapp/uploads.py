"""Takes the one picture out of an HTTP request.

Rules:
- Nothing is written to disk, and the name that the sender gave the file is never used.
- No declared type is believed, except that a multipart body has to be taken apart.
- The limit on size is kept while reading, whatever length was announced, if any.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Final

from flask import Request, request
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from webapp.errors import BadRequest, UploadTooLarge

SEND_AGAIN: Final = "Send it again, in one piece or in valid chunks."


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


def picture_in_body() -> bytes:
    """The body of the request that is being handled, or the only file of a multipart body.

    Raises:
        BadRequest: The multipart body does not hold exactly one file.
        UploadTooLarge: The body is longer than the limit.
    """
    with _reading():
        if request.mimetype != "multipart/form-data":
            return _bare_body()
        files = [file for _, file in request.files.items(multi=True)]
    if len(files) != 1:
        raise BadRequest(
            f"The form holds {len(files) or 'no'} files.",
            "Send exactly one: curl -F image=@photo.jpg, or the bare file as the body.",
        )
    [file] = files
    data: bytes = file.read()
    return data


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


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except RequestEntityTooLarge:
        limit_mib = (request.max_content_length or 0) / (1024 * 1024)
        raise UploadTooLarge(
            f"The upload is longer than {limit_mib:.3g} MiB.",
            "Send a smaller file; the picture is scaled down in any case.",
        ) from None
    except ParseException as error:  # From gunicorn, for a body in malformed chunks.
        raise BadRequest(f"The body cannot be read: {error}.", SEND_AGAIN) from None
    except NoMoreData:  # From gunicorn, for a body that ends within a chunk.
        raise BadRequest("The body ends too soon.", SEND_AGAIN) from None
