"""Plain gunicorn and Flask with the model in every worker: what most people would begin with.

``gunicorn loadtest.bench.servers.plain:app`` with as many workers as cores, one thread each.
"""

from flask import Flask, Response, request

from loadtest.bench.servers.peer import Model, decode

app = Flask(__name__)
model = Model(threads=1, max_batch=1)


@app.post("/classify")
def classify() -> Response:
    """The picture in the body, its three classes in the answer."""
    [answer] = model.classify(decode(request.get_data(cache=False), model.contract)[None])
    return Response(answer, mimetype="application/json")
