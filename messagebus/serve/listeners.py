"""The sockets that ``messagebus serve`` listens on: ``HOST:PORT``, ``unix:PATH`` or ``fd://NUMBER``."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
import time
from dataclasses import dataclass

BACKLOG = 2048
"""Maximum connections that wait to be accepted: after a restart everybody comes back at once."""
FREE_SECONDS = 2.0
FIRST_INHERITED = 3
"""The first descriptor that systemd passes (sd_listen_fds)."""


@dataclass(frozen=True, kw_only=True)
class SocketFile:
    """Owner and mode of a Unix socket: connecting takes the permission to write."""

    mode: int | None = None
    """``None``: 0777 less the process's umask."""
    user: int = -1
    group: int = -1


def parse_owner(text: str) -> tuple[int, int]:
    """``USER``, ``USER:GROUP`` or ``:GROUP``, by name or number, as ids; -1 for one that is not given.

    Raises:
        ValueError: The user or group does not exist.
    """
    user, _, group = text.partition(":")
    try:
        return (
            -1 if not user else int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid,
            -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid,
        )
    except KeyError:
        raise ValueError(f"{text!r}: there is no such user or group") from None


def inherited_binds() -> list[str]:
    """The sockets that systemd, or a program that does as it does, has opened for this process: ``fd://3`` and so on.
    Removes the variables that announce them, which are not for child processes."""
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return [f"fd://{number}" for number in range(FIRST_INHERITED, FIRST_INHERITED + int(count))]


def open_when_free(bind: str, file: SocketFile) -> socket.socket:
    """The same as :func:`open_listener`, for an address that somebody may be about to leave: the workers of a master
    that was killed do not take long."""
    deadline = time.monotonic() + FREE_SECONDS
    while True:
        try:
            return open_listener(bind, file)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def open_listener(bind: str, file: SocketFile = SocketFile()) -> socket.socket:
    """A listening socket.

    Raises:
        ValueError: ``bind`` has none of the forms.
        OSError: The address is not available; ``strerror`` says why.
    """
    if bind.startswith("fd://"):
        return _adopt(bind)
    if bind.startswith("unix:"):
        return _open_unix(bind.removeprefix("unix:"), file)
    host, separator, port = bind.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{bind!r}: expected HOST:PORT, unix:PATH or fd://NUMBER")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets have it from here. Short answers would wait 40 ms for the client to acknowledge the last.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, int(port)))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def name_of(listener: socket.socket) -> str:
    """The socket's name for people."""
    address = listener.getsockname()
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _adopt(bind: str) -> socket.socket:
    number = bind.removeprefix("fd://")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"{bind!r}: expected fd://NUMBER, such as fd://3")
    try:
        listener = socket.socket(fileno=int(number))
    except OSError as error:
        raise OSError(error.errno, f"descriptor {number} is no socket ({error.strerror})") from None
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise OSError(errno.EINVAL, f"descriptor {number} is not a socket that listens")
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _open_unix(path: str, file: SocketFile) -> socket.socket:
    if not path:
        raise ValueError("'unix:': expected unix:PATH")
    _check_free(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # left behind by a server that was killed
    listener = socket.socket(socket.AF_UNIX)
    # Nobody else may connect before it has its owner and its mode.
    umask = os.umask(0o777)
    try:
        if file == SocketFile():
            os.umask(umask)
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror or str(error)) from None
    finally:
        os.umask(umask)
    try:
        if (file.user, file.group) != (-1, -1):
            os.chown(path, file.user, file.group)
        if file != SocketFile():
            os.chmod(path, 0o777 & ~umask if file.mode is None else file.mode)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        os.unlink(path)
        raise OSError(error.errno, error.strerror or str(error)) from None
    return listener


def _check_free(path: str) -> None:
    """
    Raises:
        OSError: A server listens there, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name, which is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # left behind by a server that was killed
        except FileNotFoundError:
            return
        except PermissionError:
            raise OSError(errno.EACCES, "there is a socket of another user") from None
        except OSError:
            pass  # too busy to answer, so somebody is there
    raise OSError(errno.EADDRINUSE, "a server listens there")
