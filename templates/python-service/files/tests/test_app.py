from pathlib import Path

import pytest

from <%= it.module %> import __version__
from <%= it.module %>.app import create_app
from <%= it.module %>.serve import gunicorn_options, main, read_config

CONFIG = Path(__file__).parent.parent / "packaging" / "config.toml"


@pytest.fixture
def client():
    return create_app({"greeting": "good morning"}).test_client()


def test_index_names_version_and_greeting(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.json == {"service": "<%= it.name %>", "version": __version__, "greeting": "good morning"}


def test_healthz_is_ok(client):
    assert client.get("/healthz").json["status"] == "ok"


def test_unknown_page_is_404(client):
    assert client.get("/nothing").status_code == 404


def test_packaged_configuration_is_read():
    config = read_config(CONFIG)
    assert gunicorn_options(config["server"])["bind"] == "127.0.0.1:<%= it.port %>"
    assert config["app"]["greeting"] == "hello"


def test_ipv6_address_gets_brackets():
    assert gunicorn_options({"host": "::1", "port": 80, "workers": 1})["bind"] == "[::1]:80"


def test_missing_configuration_is_said(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.toml")]) == 1
    assert "none.toml" in capsys.readouterr().err
