"""The application for a WSGI server, with the settings of the environment.

Imported by the process that answers, and not by one that forks it.
"""

import os

from telemetry import tracing
from webapp.app import create_app
from webapp.config import Config

app = create_app(Config.from_env(os.environ), tracer=tracing.start("sightline-web", os.environ))
