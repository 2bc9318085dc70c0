"""The settings as an override for Docker Compose."""

from loadtest.tune.settings import Settings

NAME = "docker-compose.tuned.yml"


def override(settings: Settings, where: str) -> str:
    """A compose file to lay over docker-compose.yml; ``where`` they were found, for a comment."""
    web = _lines(settings.web_environment())
    model = _lines(settings.model_environment())
    return f"""\
# What `make tune` found best on {where}:
#   docker compose -f docker-compose.yml -f bench-output/{NAME} up --build --wait
# Replicas: `--scale model=n` has the last word.

services:
  web:
    environment:
{web}
  model:
    environment:
{model}
    deploy:
      replicas: {settings.replicas}
"""


def _lines(environment: dict[str, str]) -> str:
    return "\n".join(f'      {name}: "{value}"' for name, value in environment.items())
