"""The web application. `create_app` gives a WSGI application for the server, and for the tests."""

from collections.abc import Mapping
from typing import Any

from flask import Flask, jsonify

from . import __version__


def create_app(settings: Mapping[str, Any] | None = None) -> Flask:
    settings = settings or {}
    app = Flask(__name__)
    greeting = str(settings.get("greeting", "hello"))

    @app.get("/")
    def index():
        return jsonify(service="<%= it.name %>", version=__version__, greeting=greeting)

    @app.get("/healthz")
    def healthz():
        return jsonify(service="<%= it.name %>", version=__version__, status="ok")

    return app
