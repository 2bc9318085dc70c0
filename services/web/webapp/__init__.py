"""Sightline's web tier: a picture comes in over HTTP, its classes go out as a page or JSON.

Start reading at `app.create_app`; `classifier` is the life of a request, `client` its way to
the broker and back.
"""
