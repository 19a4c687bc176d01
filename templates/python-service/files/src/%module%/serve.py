"""Starts the application under gunicorn with the addresses of the configuration file."""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from . import __version__
from .app import create_app

DEFAULTS: dict[str, Any] = {"host": "127.0.0.1", "port": <%= it.port %>, "workers": 2}


def read_config(path: Path) -> dict[str, Any]:
    """The configuration file as a dict with the tables `server` and `app`."""
    with path.open("rb") as file:
        config = tomllib.load(file)
    return {"server": {**DEFAULTS, **config.get("server", {})}, "app": config.get("app", {})}


def gunicorn_options(server: dict[str, Any]) -> dict[str, Any]:
    host = server["host"]
    bind = f"[{host}]:{server['port']}" if ":" in host else f"{host}:{server['port']}"
    return {"bind": bind, "workers": int(server["workers"]), "accesslog": "-"}


class Server(BaseApplication):
    def __init__(self, config: dict[str, Any]):
        self.options = gunicorn_options(config["server"])
        self.settings = config["app"]
        super().__init__()

    def load_config(self):
        for key, value in self.options.items():
            self.cfg.set(key, value)
        if "control_socket_disable" in self.cfg.settings:  # gunicorn 25.1 on: would want a home folder
            self.cfg.set("control_socket_disable", True)

    def load(self):
        return create_app(self.settings)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="<%= it.name %>")
    parser.add_argument("--config", type=Path, default=Path("/etc/<%= it.name %>/config.toml"))
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args(argv)
    try:
        config = read_config(arguments.config)
    except (OSError, tomllib.TOMLDecodeError) as error:
        print(f"<%= it.name %>: {arguments.config}: {error}", file=sys.stderr)
        return 1
    Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
