"""The application for a WSGI server, with the settings of the environment."""

import os

from webapp.app import create_app
from webapp.config import Config

app = create_app(Config.from_env(os.environ))
