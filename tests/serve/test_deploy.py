"""The files of deploy/: the settings and paths in them exist, and the programs that read them accept them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
import typer.main
import yaml

from conftest import start
from palate.cli import app
from palate.serve.security import add_key
from palate.serve.settings import PREFIX, Settings
from palate.serve.store import Store

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FLAGS = {name for one in typer.main.get_command(app).commands["serve"].params for name in one.opts}
VARIABLES = {PREFIX + one.name.upper() for one in fields(Settings)}


def need(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def flags_of(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def test_the_settings_are_settings():
    settings = Settings.read(DEPLOY / "serve.toml")
    assert settings.require_keys
    assert settings.scenarios.keys() == {"home", "cart"}


def test_the_containerfile_names_what_is_there():
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= {
        *("ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE"),
        *("HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"),
    }
    last = "\n".join(lines[lines.index("FROM ${BASE}") :])
    assert re.search(r"^USER [1-9]\d+$", last, re.MULTILINE)  # a number, so that a supervisor sees that it is not root
    assert set(re.findall(r"PALATE_\w+(?==)", last)) <= VARIABLES
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
    extras = re.search(r"'\.\[(.+)\]'", text)[1].split(",")
    assert (
        set(extras) <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    )
    command = json.loads(re.search(r"^ENTRYPOINT (.+)$", last, re.MULTILINE)[1])
    command += json.loads(re.search(r"^CMD (.+)$", last, re.MULTILINE)[1])
    assert command[:2] == ["palate", "serve"]
    assert "/v1/health/ready" in last


def test_the_compose_file_starts_the_server_with_settings_that_exist():
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    palate, database = document["services"]["palate"], document["services"]["database"]
    assert (DEPLOY / palate["build"]["context"] / palate["build"]["dockerfile"]).is_file()
    assert palate["command"][0] == "serve"
    assert flags_of(palate["command"]) <= FLAGS
    assert palate["environment"].keys() <= VARIABLES
    assert palate["read_only"]
    assert palate["depends_on"].keys() <= document["services"].keys()
    user, name = database["environment"]["POSTGRES_USER"], database["environment"]["POSTGRES_DB"]
    assert re.fullmatch(rf"postgresql://{user}:\$.+@database/{name}", palate["environment"][PREFIX + "STORE"])
    (config,) = (one.split(":")[0] for one in palate["volumes"] if "serve.toml" in one)
    assert (DEPLOY / config).is_file()


def test_systemd_accepts_the_unit(tmp_path):
    text = (DEPLOY / "palate.service").read_text()
    command = re.search(r"^ExecStart=(.+)$", text, re.MULTILINE)[1].split()
    assert command[1] == "serve"
    assert flags_of(command) <= FLAGS
    unit = tmp_path / "palate.service"
    unit.write_text(text.replace(command[0], sys.executable).replace("man:systemd.exec(5)", "https://localhost"))
    verified = subprocess.run(
        [need("systemd-analyze"), "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nginx_forwards_lists_feedback_and_the_stream(serving, tmp_path):
    nginx, openssl = need("nginx"), need("openssl")
    store = Store(f"sqlite:///{tmp_path}/palate-serve.db")
    with store.engine.begin() as connection:
        key = add_key(connection, "shop", "admin")[0]
    store.engine.dispose()
    name = "recommend.example.com"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -keyout key -out pem -subj"
    subprocess.run([openssl, *request.split(), f"/CN={name}"], check=True, capture_output=True, cwd=tmp_path)
    port = free_port()
    with serving(folder=tmp_path, PALATE_SERVE_ALLOWED_HOSTS=name, PALATE_SERVE_REQUIRE_KEYS="true") as server:
        text = (DEPLOY / "nginx.conf").read_text().replace("127.0.0.1:8000", server.url.removeprefix("http://"))
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        text = text.replace(f"/etc/ssl/certs/{name}.pem", f"{tmp_path}/pem")
        text = text.replace(f"/etc/ssl/private/{name}.key", f"{tmp_path}/key")
        folders = "".join(
            f"{one}_temp_path {tmp_path}/{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
            f"events {{}}\nhttp {{ access_log off; {folders}\n{text}\n}}\n"
        )
        command = [nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            headers = {"host": f"{name}:{port}", "authorization": f"Bearer {key}"}
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=False, timeout=60, headers=headers
            ) as client:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        listed = client.get("/v1/recommend", params={"user_id": "u00", "k": 2})
                        break
                    except httpx.ConnectError:
                        assert time.monotonic() < deadline
                        time.sleep(0.05)
                assert len(listed.json()["items"]) == 2
                with client.stream("GET", "/v1/stream") as stream:
                    lines = stream.iter_lines()
                    assert "event: overview" in [next(lines) for _ in range(3)]
                event = {"user_id": "u00", "item_id": "i/00 ä", "type": "click"}
                origin = {"origin": f"https://{name}:{port}"}
                assert client.post("/v1/feedback", json=event, headers=origin).json()["stored"] == 1
                lines = (json.dumps({**event, "event_id": f"n{n}"}).encode() + b"\n" for n in range(100))
                assert client.post("/v1/import/events", content=lines).json()["stored"] == 100
        finally:
            proxy.terminate()
            proxy.wait(60)


READ_ONLY = """
mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro / && cd "$1" && shift || exit 99
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$@"
"""


def test_a_user_without_rights_on_a_read_only_root_can_serve(bundle):
    """As the container runs it: only the folder of the store can be written to."""
    if os.getuid():
        pytest.skip("another user and a read-only root need root")
    unshare, _ = need("unshare"), need("setpriv")
    with tempfile.TemporaryDirectory(prefix="palate-ro-", dir="/var/tmp") as name:
        folder = Path(name)
        shutil.copytree(bundle, folder / "bundle")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        data = folder / "data"
        data.mkdir()
        os.chown(data, 65534, 65534)
        prefix = [unshare, "--mount", "sh", "-c", READ_ONLY, "sh", str(data)]
        probe = subprocess.run(
            [*prefix, sys.executable, "-c", "import palate"], capture_output=True, check=False, cwd=data
        )
        if probe.returncode:
            pytest.skip("this machine gives no read-only root, or the user nobody cannot read the installation")
        server = start(str(folder / "bundle"), folder=data, prefix=prefix)
        try:
            assert server.post("/v1/feedback", {"user_id": "u00", "item_id": "i/00 ä", "type": "like"})["stored"] == 1
            assert server.get("/v1/recommend", user_id="u00")["items"][0]["source"] == "fold-in"
            assert (data / "palate-serve.db").stat().st_uid == 65534
            (status,) = re.findall(
                r"^Uid:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text(), re.MULTILINE
            )
            assert status == "65534"
        finally:
            assert server.stop() == 0
