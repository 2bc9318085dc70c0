"""Fuzz target: any bytes are files within the limits, or raise one of our errors that is no 500."""

from collections.abc import Iterator

from services.web.tests.test_archives import gzipped, tarred, zipped

from webapp.archives import MAX_FILES, MAX_NAME, Upload, is_archive, unpacked
from webapp.errors import WebError

MAX_FILE = 4096
FILES = {"a.jpg": b"a" * 600, "holidays/b.png": b"b" * 512, ".hidden": b"c", "empty": b""}


def seeds() -> Iterator[bytes]:
    for files in (FILES, {}, {"x" * 90: b"1"}, {"\N{SNOWMAN}": bytes(MAX_FILE + 1)}):
        for method in (0, 8, 12, 14):
            yield zipped(files, method)
        for form in (0, 1, 2):
            yield tarred(files, form)
        yield gzipped(files)


def check(data: bytes) -> None:
    if not is_archive(data):
        return
    uploads: list[Upload] = []
    refusal: WebError | None = None
    try:
        uploads = list(unpacked(data, MAX_FILE))
    except WebError as error:
        refusal = error
    if refusal is not None:
        assert refusal.status < 500
        return
    assert 0 < len(uploads) <= MAX_FILES
    for upload in uploads:
        assert len(upload.id) <= MAX_NAME
        if isinstance(upload.data, WebError):
            assert upload.data.status < 500
        else:
            assert len(upload.data) <= MAX_FILE


def refine(data: bytes, _seed: int) -> bytes:
    """Makes the checksum of a TAR's first header right: behind a wrong one nothing is looked at."""
    if data[257:262] != b"ustar" or len(data) < 512:
        return data
    header = data[:148] + b" " * 8 + data[156:512]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:] + data[512:]
