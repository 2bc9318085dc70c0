"""The pages for people: a form, and what the model saw in the picture. They need no JavaScript."""

from base64 import b64encode
from typing import Final

from flask import Blueprint, g, render_template

from webapp.classifier import Classifier
from webapp.envelope import note_timing
from webapp.openapi import Document
from webapp.presence import sender_left
from webapp.uploads import picture_in_form

SHOWN: Final = 3
"""Classes on the page, as in the tutorial."""


def blueprint(classifier: Classifier, description: Document) -> Blueprint:
    """The routes for browsers, answered by ``classifier``; ``description`` is the API's."""
    pages = Blueprint("pages", __name__)

    @pages.get("/")
    def index() -> str:
        return render_template("index.html")

    @pages.post("/uploader")
    def uploader() -> str:
        classified = classifier.classify(
            picture_in_form("file"),
            top_k=SHOWN,
            began=g.began,
            trace=g.request_id,
            traceparent=g.traceparent,
            preview=True,
            left=sender_left(),
        )
        note_timing(classified.timing_ms, classified.cache)
        return render_template(
            "result.html",
            result=classified.result,
            picture=classified.picture,
            preview=b64encode(classified.picture.preview).decode(),
            timing_ms=classified.timing_ms,
        )

    @pages.get("/api/docs")
    def docs() -> str:
        return render_template("docs.html", api=description)

    return pages
