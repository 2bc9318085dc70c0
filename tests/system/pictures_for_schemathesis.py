"""Read by schemathesis, of which `test_description` tells: pictures, where a body is to be one;
time, where there is to be an answer; and that every line of some is a document of its own.
"""

import base64
import json
from typing import Any

import schemathesis
from hypothesis import strategies as st
from services.imaging.tests import hostile
from services.web.tests.test_archives import gzipped, tarred, zipped

from webapp.openapi import ARCHIVES, IMAGES

for kind in IMAGES:
    file = hostile.encoded(hostile.flag(), kind)
    schemathesis.openapi.media_type(f"image/{kind}", st.just(file))
photo = hostile.encoded(hostile.flag(), "png")
for media, pack in zip(ARCHIVES, (zipped, tarred, gzipped), strict=True):
    schemathesis.openapi.media_type(media, st.just(pack({"a.png": photo, "b.txt": b"text"})))
schemathesis.openapi.format("byte", st.just(base64.b64encode(photo).decode()))
schemathesis.openapi.format("binary", st.just(photo))


@schemathesis.hook
def before_call(_context: Any, case: Any, _options: Any) -> None:
    """Who has too little time is told so with a 504, which is right, and no error to be found."""
    given = str(case.query.get("deadline_ms", "")) if case.query else ""
    if given.isdecimal() and 100 <= int(given) < 10_000:
        case.query["deadline_ms"] = 10_000


@schemathesis.deserializer("application/x-ndjson")
def first_problem(_context: Any, response: Any) -> Any:
    """One line of them, which is what the description has a schema for."""
    lines = [json.loads(line) for line in response.content.splitlines()]
    return next((line for line in lines if "type" in line), lines[0])
