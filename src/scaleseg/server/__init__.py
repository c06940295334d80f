"""A server for models: the viewer, an API for programs, and what keeps one request from harming another.

fastapi and uvicorn are needed (`pip install 'scaleseg[serve]'`); the verb says so where they are missing.
"""

from scaleseg.server.app import Server, create_app
from scaleseg.server.models import Served, name_models
from scaleseg.server.run import Runner, address, is_loopback, load_models, open_socket, serve
from scaleseg.server.security import hosts_of
from scaleseg.server.settings import Limits, Settings

__all__ = [
    "Limits", "Runner", "Served", "Server", "Settings", "address", "create_app", "hosts_of", "is_loopback",
    "load_models", "name_models", "open_socket", "serve",
]  # fmt: skip
