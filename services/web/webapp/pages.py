"""The pages for people: a form, what the model saw in the picture, and what goes on behind it.

Rules:
- They work without JavaScript, and say the same with it.
- The script of a page may ask the page's own address for JSON instead of a page. So where programs
  need a key the page works as its form does; what only the API has (the choice of the model, for
  one) stays behind the key.
"""

import time
from base64 import b64encode
from typing import Final

from flask import Blueprint, Response, g, render_template

from webapp.answers import answer_of
from webapp.api import READY_S
from webapp.classifier import Classifier
from webapp.envelope import answer, note_timing, wants_json
from webapp.errors import Unavailable
from webapp.openapi import Document
from webapp.presence import sender_left
from webapp.status import Watch
from webapp.terms import Terms
from webapp.uploads import picture_in_form

SHOWN: Final = 3
"""Classes on the page, as in the tutorial."""


def blueprint(classifier: Classifier, watch: Watch, description: Document) -> Blueprint:
    """The routes for browsers, answered by ``classifier`` and ``watch``; ``description`` is the
    API's."""
    pages = Blueprint("pages", __name__)

    @pages.get("/")
    def index() -> str:
        return render_template("index.html")

    @pages.post("/uploader")
    def uploader() -> str | Response:
        file = picture_in_form("file")
        terms = Terms(
            deadline=classifier.deadline(g.began),
            top_k=SHOWN,
            trace=g.request_id,
            traceparent=g.traceparent,
            left=sender_left(),
        )
        classified = classifier.classify(file, terms, began=g.began, preview=not wants_json())
        note_timing(classified.timing_ms, classified.cache)
        if wants_json():
            return answer(answer_of(classified, g.request_id))
        return render_template(
            "result.html",
            result=classified.result,
            picture=classified.picture,
            preview=b64encode(classified.picture.preview).decode(),
            timing_ms=classified.timing_ms,
        )

    @pages.get("/status")
    def status() -> str:
        try:
            seen = watch.look(deadline=time.monotonic() + READY_S)
        except Unavailable:
            seen = None  # The page says so, and goes on asking.
        return render_template("status.html", status=seen)

    @pages.get("/api/docs")
    def docs() -> str:
        return render_template("docs.html", api=description)

    return pages
