"""Read by schemathesis, of which `test_description` tells: pictures, where a body is to be one."""

import schemathesis
from hypothesis import strategies as st
from services.imaging.tests import hostile

from webapp.openapi import IMAGES

for kind in IMAGES:
    file = hostile.encoded(hostile.flag(), kind)
    schemathesis.openapi.media_type(f"image/{kind}", st.just(file))
schemathesis.openapi.format("binary", st.just(hostile.encoded(hostile.flag(), "png")))
