"""The tutorial's design, with Sightline's model in it: Flask, and a model server behind ZeroMQ.

``python -m loadtest.bench.servers.tutorial PORT``. Rules, all of them the tutorial's:
- The model server binds one ROUTER; each request gets a thread of its own, which answers through
  an inproc DEALER and calls `model.predict` for its one picture.
- A picture travels as base64 inside JSON.
- Flask opens a socket for each request. It runs under gunicorn here, since Flask's own server
  would lose more of what is to be compared.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import uuid
from typing import Any

import zmq
from flask import Flask, Response, request

HOST = "127.0.0.1"
ADDRESS = "BENCH_TUTORIAL"
"""The variable with the model server's address."""
THREADS = 160
"""More than there are connections: Flask's own server has no limit either."""
INSIDE = "inproc://requests"

app = Flask(__name__)
context = zmq.Context()


@app.post("/classify")
def classify() -> Response:
    """The web tier: ask the model server and wait."""
    with context.socket(zmq.DEALER) as server:
        server.identity = uuid.uuid4().hex.encode()
        server.connect(os.environ[ADDRESS])
        payload = base64.b64encode(request.get_data()).decode()
        server.send_string(json.dumps({"payload": payload, "_rid": uuid.uuid4().hex}))
        return Response(server.recv(), mimetype="application/json")


class RequestHandler(threading.Thread):
    """Answers one request."""

    def __init__(self, model: Any, client: bytes, message: bytes) -> None:
        super().__init__(daemon=True)
        self._model = model
        self._client = client
        self._message = message

    def run(self) -> None:
        question = json.loads(self._message)
        predictions = self._model.classify(base64.b64decode(question["payload"]))
        with context.socket(zmq.DEALER) as back:
            back.connect(INSIDE)
            answer = json.dumps({"predictions": predictions, "_rid": question["_rid"]})
            back.send_multipart([self._client, answer.encode()])


def serve_model(address: str) -> None:
    """The model server: one thread for the sockets, one more for each request."""
    from loadtest.bench.servers.keras_model import KerasModel

    model = KerasModel()
    with context.socket(zmq.ROUTER) as clients, context.socket(zmq.DEALER) as handlers:
        handlers.bind(INSIDE)
        clients.bind(address)
        poller = zmq.Poller()
        poller.register(clients, zmq.POLLIN)
        poller.register(handlers, zmq.POLLIN)
        while True:
            readable = dict(poller.poll())
            if clients in readable:
                client, message = clients.recv_multipart()
                RequestHandler(model, client, message).start()
            if handlers in readable:
                clients.send_multipart(handlers.recv_multipart())


def main(port: int) -> None:
    """Run both tiers; this process becomes the web tier."""
    address = f"tcp://{HOST}:{port + 1}"
    module = "loadtest.bench.servers.tutorial"
    subprocess.Popen([sys.executable, "-m", module, "model", address])
    arguments = ["-m", "gunicorn", f"{module}:app", "--bind", f"{HOST}:{port}"]
    arguments += ["--worker-class", "gthread", "--threads", str(THREADS), "--timeout", "120"]
    arguments += ["--log-level", "warning", "--no-control-socket"]
    os.environ[ADDRESS] = address
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    if sys.argv[1] == "model":
        serve_model(sys.argv[2])
    else:
        main(int(sys.argv[1]))
