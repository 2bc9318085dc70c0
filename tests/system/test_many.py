"""Many photographs in one upload, through web, broker and replicas as real processes."""

import contextlib
import http.client
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service
from webapp.client import ModelClient

pytestmark = pytest.mark.drill

DAMAGED = {3: 422, 50: 415, 97: 413}
"""Which of them is damaged, and the status of that damage."""


def damaged(files: dict[str, bytes]) -> dict[str, bytes]:
    """``files`` with three of them spoilt: cut off, no picture, and one of too many pixels."""
    names = list(files)
    header = struct.pack("!4sIIBBBBB", b"IHDR", 32_767, 32_767, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(b""), b"IEND")
    many_pixels = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(chunk) - 4) + chunk + struct.pack("!I", zlib.crc32(chunk))
        for chunk in chunks
    )
    cut = files[names[3]]
    return files | {
        names[3]: cut[: len(cut) // 3],
        names[50]: b"no picture" * 9,
        names[97]: many_pixels,
    }


def in_form(files: dict[str, bytes]) -> tuple[str, bytes]:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="%b"\r\n\r\n%b\r\n'
        % (name.encode(), data)
        for name, data in files.items()
    ]
    return "multipart/form-data; boundary=b", b"".join(parts) + b"--b--\r\n"


def in_archive(files: dict[str, bytes]) -> tuple[str, bytes]:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return "application/zip", packed.getvalue()


def lines(port: int, media: str, body: bytes) -> Iterator[dict[str, Any]]:
    """The answers, each as soon as it is here."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/api/v1/classify?top_k=1", body, {"Content-Type": media})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "application/x-ndjson"
        while line := response.readline():
            yield json.loads(line)


def accepted(service: Service) -> int:
    """How many pictures the broker has taken so far."""
    client = ModelClient(service.frontend)
    with contextlib.closing(client):
        return client.status(deadline=time.monotonic() + 5).counts["accepted"]


@pytest.mark.parametrize("sent", [in_form, in_archive])
def test_a_hundred_photographs_in_one_upload(
    service: Service, photographs: dict[Path, int], sent: Any
) -> None:
    service.start()
    files = damaged({path.name: path.read_bytes() for path in photographs})
    right, problems, accepted_at_first = 0, {}, 0
    seen: list[int] = []
    for line in lines(service.port, *sent(files)):
        if not seen:
            accepted_at_first = accepted(service)
        seen.append(line["index"])
        name = list(files)[line["index"]]
        assert line["id"] == name
        if "type" in line:
            problems[line["index"]] = line
        else:
            right += line["predictions"][0]["class_index"] == int(name[:3])
    assert sorted(seen) == list(range(100))
    assert {index: line["status"] for index, line in problems.items()} == DAMAGED
    assert len({line["type"] for line in problems.values()}) == 3
    assert len({line["detail"] for line in problems.values()}) == 3
    assert right >= 0.8 * 100
    print(f"{right} right; {accepted_at_first} of 97 were sent when the first answer was here")
    assert accepted_at_first < 97
    assert accepted(service) == 97
