"""Stop a process at its n-th system call that changes the disk, or let that call fail, whoever makes it.

DuckDB, Arrow and faiss write natively: no patch of Python sees them. The kernel asks this process before each such call
of a child (seccomp's user notification, Linux 5.5 and later): let it go on, answer with an error, or kill the child.
A call counts where it touches the given folder. `man 2 seccomp_unotify` describes the structures.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# Name -> number on x86-64 and on aarch64 (-1: not there), and which argument is a descriptor or a path.
_CALLS = {
    "write": (1, 64, "fd0"),
    "pwrite64": (18, 68, "fd0"),
    "writev": (20, 66, "fd0"),
    "pwritev": (296, 70, "fd0"),
    "sendfile": (40, 71, "fd0"),
    "copy_file_range": (326, 285, "fd2"),
    "ftruncate": (77, 46, "fd0"),
    "fallocate": (285, 47, "fd0"),
    "fsync": (74, 82, "fd0"),
    "fdatasync": (75, 83, "fd0"),
    "mkdir": (83, -1, "path0"),
    "mkdirat": (258, 34, "path1"),
    "rename": (82, -1, "path1"),
    "renameat": (264, 38, "path3"),
    "renameat2": (316, 276, "path3"),
    "symlink": (88, -1, "path1"),
    "symlinkat": (266, 36, "path2"),
}
_MACHINES = {"x86_64": (0, 317), "aarch64": (1, 277)}
_BY_NUMBER = {}
if platform.machine() in _MACHINES:
    _COLUMN, _SECCOMP = _MACHINES[platform.machine()]
    _BY_NUMBER = {call[_COLUMN]: (name, call[2]) for name, call in _CALLS.items() if call[_COLUMN] >= 0}

_SET_MODE_FILTER, _NEW_LISTENER, _NO_NEW_PRIVS = 1, 8, 38
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctl of seccomp_notif (80 bytes) and seccomp_notif_resp (24 bytes)
_CONTINUE = 1
KILL = -1


@dataclass
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code; minus the signal that killed it.
        calls: the calls that counted, each as its name and the path below the root.
        hit: those that did not go on.
    """

    code: int = 0
    calls: list[str] = field(default_factory=list)
    hit: list[str] = field(default_factory=list)


def supervised(run: Callable[[], object], root: Path, decide: Callable[[int, str], int]) -> Ended:
    """Run a function in a fork of this process, and decide about each call below `root` that changes the disk.

    Args:
        run: what the child does; its exit code is 0, that of a SystemExit, or 70 for another error.
        decide: of the call's number, from 1, its name and its path: 0 to let it go on, an errno, or KILL.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            socket.send_fds(theirs, [b"x"], [_install()])
            run()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os._exit(code)
    theirs.close()
    _, (listener, *_), *_ = socket.recv_fds(ours, 1, 1)
    ended = Ended()
    try:
        _supervise(listener, child, root, decide, ended)
    finally:
        os.close(listener)
        ours.close()
    ended.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ended


def available() -> bool:
    """Whether this system lets a process ask for it: another process tries."""
    command = [sys.executable, "-m", "tests.torture.syscalls"]
    root = Path(__file__).resolve().parents[2]
    return bool(_BY_NUMBER) and not subprocess.run(command, cwd=root, capture_output=True, check=False).returncode


def _install() -> int:
    """Ask for a notification of each of the calls; gives the descriptor on which they come."""
    load = struct.pack("HBBI", 0x20, 0, 0, 0)  # the number of the call
    tests = b"".join(
        struct.pack("HBBI", 0x15, len(_BY_NUMBER) - position, 0, number) for position, number in enumerate(_BY_NUMBER)
    )
    allow, notify = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), struct.pack("HBBI", 0x06, 0, 0, 0x7FC00000)
    program = ctypes.create_string_buffer(load + tests + allow + notify)
    count = 3 + len(_BY_NUMBER)
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", count, ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = int(libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(filters)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "no seccomp notifications")
    return listener


def _supervise(listener: int, child: int, root: Path, decide: Callable[[int, str], int], ended: Ended) -> None:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        ((_, events),) = poll.poll()
        if not events & select.POLLIN:  # the last process of the filter is gone
            return
        request = array.array("B", bytes(80))
        try:
            fcntl.ioctl(listener, _RECEIVE, request)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # killed between the notification and now
                continue
            raise
        number, process, _, call = struct.unpack_from("QIIi", request)
        name, argument = _BY_NUMBER[call]
        answer = 0
        path = _path_of(process, argument, struct.unpack_from("6Q", request, 32))
        if path.startswith(f"{root}/"):
            ended.calls.append(f"{name} {path.removeprefix(f'{root}/')}")
            answer = decide(len(ended.calls), ended.calls[-1])
        if answer:
            ended.hit.append(ended.calls[-1])
        if answer == KILL:
            os.kill(child, signal.SIGKILL)
            continue
        with suppress(FileNotFoundError):  # it died in the meantime
            reply = struct.pack("QqiI", number, 0, -answer, 0 if answer else _CONTINUE)
            fcntl.ioctl(listener, _SEND, array.array("B", reply))


def _path_of(process: int, argument: str, values: tuple[int, ...]) -> str:
    """The path that a call is about; empty where none can be read."""
    position = int(argument[-1])
    try:
        if argument.startswith("fd"):
            descriptor = ctypes.c_int(values[position] & 0xFFFFFFFF).value
            return str(Path(f"/proc/{process}/fd/{descriptor}").readlink())
        with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - not a file to speak of
            memory.seek(values[position])
            return os.fsdecode(memory.read(4096).split(b"\0")[0])
    except OSError:
        return ""


if __name__ == "__main__":
    _install()
    os._exit(0)  # nobody answers: no other call may follow
