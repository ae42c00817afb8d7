"""The files of ``deploy/``, run where this machine can run them, and else read as their programs would."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from messagebus.command.doctor.probe import Place
from messagebus.command.doctor.way import check_way
from messagebus.serve.cli import serve

from ..fixtures_servers import ServeApp
from ..nginx_server import Nginx
from ..ports import free_port

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def seconds_to_stop(arguments: list[str]) -> float:
    return float(arguments[arguments.index("--stop-timeout") + 1])


def check_serve(arguments: list[str]) -> None:
    """That ``messagebus serve`` takes these."""
    serve.make_context("serve", list(arguments), resilient_parsing=False).close()


# --- nginx ---


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """A directory with a certificate for localhost, which signs itself."""
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-keyout", str(tmp_path / "privkey.pem"), "-out", str(tmp_path / "fullchain.pem")]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*openssl, *names, *files], check=True, capture_output=True)
    return tmp_path


class _Deployed(Nginx):
    """nginx with a whole ``http`` section of ours in place of the harness's server."""

    def __init__(self, prefix: Path, text: str, port: int) -> None:
        super().__init__("127.0.0.1:1", prefix, port=port)
        path = prefix / "nginx.conf"
        before, _, _ = path.read_text().partition("    upstream app")
        path.write_text(f"{before}\n{text}\n}}\n")


@pytest.fixture
def deployed(serve_app: ServeApp, redis_url: str, tls: Path) -> Iterator[tuple[str, Any, Any]]:
    """``deploy/nginx`` before two servers, one on a port one on a Unix socket; ports and paths are replaced."""
    env = {"MESSAGEBUS_URL": redis_url}
    one = serve_app("serve", env=env)
    two = serve_app("serve", env=env, unix=tls / "app.sock")
    plain, secure = free_port(), free_port()
    text = (DEPLOY / "nginx/messagebus.conf").read_text()
    for old, new in {
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
        "127.0.0.1:8000": one.address,
        "/run/messagebus/app.sock": str(two.unix),
        "/etc/ssl/messagebus": str(tls),
    }.items():
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    prefix = tls / "nginx"
    prefix.mkdir()
    nginx = _Deployed(prefix, text, secure)
    nginx.start()
    try:
        yield f"https://localhost:{secure}", one, two
    finally:
        nginx.stop()


def test_nginx_passes_every_transport_to_two_servers_over_tls(
    deployed: tuple[str, Any, Any], tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, one, two = deployed
    monkeypatch.setenv("SSL_CERT_FILE", str(tls / "fullchain.pem"))
    found = check_way(Place(f"{url}/message-bus", "/deployed", 2.0))
    assert {each.check: each.result for each in found if each.result != "ok"} == {}
    assert "websocket: opens" in {each.check for each in found}
    two.stop()  # the one that is left takes all of them
    found = check_way(Place(f"{url}/message-bus", "/deployed", 2.0))
    assert {each.check: each.found for each in found if each.result == "fail"} == {}
    assert one.running


# --- the other files ---


def test_systemd_takes_the_unit_and_its_socket(tmp_path: Path) -> None:
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text().replace("/srv/app/venv/bin/messagebus", str(Path(sys.executable).parent / "messagebus"))
        (tmp_path / path.name).write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "messagebus" in line]
    assert not ours, ours


def test_the_unit_gives_the_server_the_time_that_it_takes_to_end() -> None:
    text = (DEPLOY / "systemd/messagebus.service").read_text()
    command = re.search(r"^ExecStart=\S+/messagebus serve (.*)$", text, re.MULTILINE)
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert command is not None
    assert stop is not None
    check_serve(command[1].split())
    assert float(stop[1]) >= seconds_to_stop(command[1].split()) + 5


def test_gunicorn_serves_every_transport_with_our_configuration(serve_app: ServeApp) -> None:
    server = serve_app("gunicorn-gthread", args=("-c", str(DEPLOY / "gunicorn/gunicorn.conf.py")))
    found = check_way(Place(f"{server.url}/message-bus", "/deployed", 2.0))
    assert {each.check: each.result for each in found if each.result == "fail"} == {}
    server.get("/hello?token=secret")
    server.stop()
    assert '"GET /hello HTTP/1.1" 200' in server.output()
    assert "token=secret" not in server.output()
    assert "Traceback" not in server.output()


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "docker/Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_dockerfile_is_made_of_known_instructions_and_runs_without_root() -> None:
    given = instructions()
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in given} <= known
    assert given[0][0] == "FROM"
    assert all(":" in rest.split()[0] for word, rest in given if word == "FROM")
    last = dict(given)
    assert last["USER"].isdecimal()
    assert int(last["USER"]) > 0
    assert json.loads(last["ENTRYPOINT"]) == ["messagebus", "serve"]
    check_serve(json.loads(last["CMD"]))
    probe = json.loads(last["HEALTHCHECK"].partition(" CMD ")[2])
    compile(probe[2], "healthcheck", "exec")


def test_the_compose_file_fits_the_image_and_keeps_messages() -> None:
    given = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())
    bus, redis = given["services"]["bus"], given["services"]["redis"]
    check_serve(bus["command"])
    assert (DEPLOY / "docker" / bus["build"]["context"]).resolve() == ROOT
    assert (ROOT / bus["build"]["dockerfile"]).is_file()
    assert int(bus["stop_grace_period"].removesuffix("s")) >= seconds_to_stop(bus["command"]) + 5
    assert bus["ulimits"]["nofile"]["hard"] >= 20_000
    assert redis["command"][-2:] == ["--maxmemory-policy", "noeviction"]
    assert set(given["volumes"]) == {mount.partition(":")[0] for mount in redis["volumes"]}


def test_the_manifests_drain_and_probe_what_the_server_has(serve_app: ServeApp) -> None:
    documents = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes/messagebus.yaml").read_text())}
    assert set(documents) == {"Deployment", "Service", "PodDisruptionBudget", "Ingress"}
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_serve(container["args"])
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= sleep + seconds_to_stop(container["args"]) + 5
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    server = serve_app("serve", app="", ready="/message-bus/health/ready")
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server.get(container[name]["httpGet"]["path"])[0] == 200
    timeout = documents["Ingress"]["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]
    assert int(timeout) > 25


def test_the_caddyfile_has_balanced_braces_and_leaves_the_bus_uncompressed() -> None:
    """Caddy itself reads it where it is installed."""
    text = (DEPLOY / "caddy/Caddyfile").read_text()
    assert text.count("{") == text.count("}")
    assert re.search(r"@app not path /message-bus/\*\n\s+encode @app gzip", text)
    caddy = shutil.which("caddy")
    if caddy is not None:
        subprocess.run([caddy, "adapt", "--config", str(DEPLOY / "caddy/Caddyfile")], check=True, capture_output=True)
