"""A broker stand-in, real decoders and the application in between; pictures made on the spot."""

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from imaging import DecoderPool
from webapp.app import create_app
from webapp.client import ModelClient
from webapp.config import Config
from webapp.testing import FakeModel

MAX_UPLOAD_BYTES = 2 * 1024 * 1024
DEADLINE_MS = 2_000


@pytest.fixture
def fake() -> Iterator[FakeModel]:
    with FakeModel() as fake:
        yield fake


@pytest.fixture
def client(fake: FakeModel) -> Iterator[ModelClient]:
    client = ModelClient(fake.endpoint)
    yield client
    client.close()


@pytest.fixture(scope="session")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(1) as decoders:
        yield decoders


@pytest.fixture
def app(client: ModelClient, decoders: DecoderPool) -> Flask:
    # Without shared answers: the tests send one picture again and again and count what arrives.
    config = Config(deadline_ms=DEADLINE_MS, max_upload_bytes=MAX_UPLOAD_BYTES, cache_bytes=0)
    return create_app(config, client, decoders)


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="session")
def photo() -> bytes:
    return encoded(Image.radial_gradient("L").convert("RGB").resize((320, 240)), "JPEG")


@pytest.fixture(scope="session")
def big_photo() -> bytes:
    """More than the half megabyte past which Flask puts an upload on disk."""
    return encoded(Image.effect_noise((1000, 1000), 80), "PNG")


@pytest.fixture(scope="session")
def huge_picture() -> bytes:
    """20000 x 20000 white and black pixels in some 50 KB."""
    rows = zlib.compress(bytes(20_000 * (1 + 20_000 // 8)))
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + rows, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


@pytest.fixture(scope="session")
def one_pixel() -> bytes:
    return encoded(Image.new("RGB", (1, 1)), "PNG")


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Polls a condition until it is true, and fails after five seconds."""

    def poll(condition: Callable[[], object]) -> None:
        give_up = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < give_up, "it never came true"
            time.sleep(0.005)

    return poll


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
