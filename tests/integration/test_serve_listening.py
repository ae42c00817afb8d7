"""Where ``messagebus serve`` listens, and what it says to options that cannot work."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import stat
from pathlib import Path

import pytest

from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..serve_helpers import fail_to_serve
from ..servers import Server


def test_a_unix_socket_has_the_mode_and_owner_that_it_is_told(serve_app: ServeApp, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for name, args, mode, uid in (
        ("mode", ("--socket-mode", "660", "--socket-owner", f"nobody:{nobody.pw_gid}"), 0o660, nobody.pw_uid),
        ("umask", ("--umask", "007"), 0o770, os.getuid()),
    ):
        path = tmp_path / name
        server = serve_app("serve", unix=path, args=args)
        assert server.get("/hello") == (200, b"hello")
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_uid == uid
        assert os.listdir(tmp_path).count(name) == 1
        server.stop()
        assert not path.exists()


def test_a_proxy_of_another_user_gets_in_where_it_is_told(serve_app: ServeApp, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for parent in (tmp_path, *tmp_path.parents[:3]):
        with contextlib.suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o011)

    def may_connect(path: Path) -> bool:
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(path))
            except PermissionError:
                os._exit(13)
            except BaseException:
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, 13)
        return code == 0

    closed, opened = tmp_path / "closed", tmp_path / "opened"
    serve_app("serve", unix=closed, args=("--socket-mode", "600"))
    serve_app("serve", unix=opened, args=("--socket-owner", f":{nobody.pw_gid}", "--socket-mode", "660"))
    assert not may_connect(closed)
    assert may_connect(opened)


def test_a_socket_file_is_taken_over_from_the_dead_alone(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    first = serve_app("serve", unix=path)
    result = fail_to_serve("--bind", f"unix:{path}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"Error: cannot listen on unix:{path}: a server listens there"
    assert first.get("/hello") == (200, b"hello")
    os.kill(first.pid, signal.SIGKILL)
    with contextlib.closing(Server("serve", unix=path)) as second:
        second.start()  # at once, when its workers may still be there, and may have answered
        eventually(lambda: "listening on" in second.output())
        assert second.get("/hello") == (200, b"hello")
    first.kill()
    first.start()
    first.kill()
    assert path.exists()
    first.start()
    assert first.get("/hello") == (200, b"hello")
    first.stop()
    path.write_text("a file")
    result = fail_to_serve("--bind", f"unix:{path}")
    assert result.returncode == 2
    assert "no socket" in result.stderr
    assert path.read_text() == "a file"


def test_it_listens_in_several_places(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    server = serve_app("serve", args=("--bind", f"unix:{path}"))
    other = Server("serve", unix=path)
    assert server.get("/hello") == other.get("/hello") == (200, b"hello")
    assert f"{server.url}, unix:{path}" in server.output()
    other.close()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--bind", "fd://x"), "expected fd://NUMBER"),
        (("--bind", "fd://77"), "descriptor 77 is no socket"),
        (("--bind", "unix:"), "expected unix:PATH"),
        (("--bind", "unix:/nowhere/at/all.sock"), "No such file or directory"),
        (("--socket-mode", "999"), "octal"),
        (("--socket-owner", "nobody-of-the-kind"), "no such user"),
        (("--head-timeout", "0"), "--head-timeout"),
        (("--url", "redis://127.0.0.1:x/0"), "option url: malformed"),
        (("--url", "nonsense"), "option url"),
        (("--pid-file", "/nowhere/at/all.pid"), "/nowhere/at"),
    ],
)
def test_what_it_is_told_wrongly_is_said_and_ends_it_with_2(args: tuple[str, ...], says: str) -> None:
    result = fail_to_serve(*args)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
