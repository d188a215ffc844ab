"""Writes to descriptors that are ready, and yet take less than they are given, do not block."""

import contextlib
import errno
import os
import pty
import socket
import struct
import threading

import pytest
from wasi_guest import RESULT, Guest

from asm_libcalls import Interrupt
from asm_libcalls.toy_jit.wasi import nonblocking

pytestmark = pytest.mark.usefixtures("machine_code")


def tcp():
    with socket.create_server(("127.0.0.1", 0)) as server:
        writer = socket.create_connection(server.getsockname())
        reader, _ = server.accept()
    return reader.detach(), writer.detach()


def pair(kind):
    return [each.detach() for each in socket.socketpair(type=kind)]


ENDS = {
    "pipe": os.pipe,
    "terminal": pty.openpty,
    "program's side of a terminal": lambda: pty.openpty()[::-1],
    "stream socket": lambda: pair(socket.SOCK_STREAM),
    "datagram socket": lambda: pair(socket.SOCK_DGRAM),
    "TCP socket": tcp,
}
"""Make the descriptors to read from and to write to."""


@pytest.fixture(params=ENDS)
def ends(request):
    found = ENDS[request.param]()
    yield found
    for fd in found:
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture(params=["this system", "without RWF_NOWAIT", "in another thread"])
def system(request, monkeypatch):
    """What the system can do, so that each way to write is tried."""
    if request.param != "this system":
        monkeypatch.setattr(nonblocking, "_NOWAIT", 1 << 30)  # EOPNOTSUPP
    if request.param == "in another thread":
        monkeypatch.setattr(nonblocking, "_open_again", lambda descriptor: None)
    return request.param


def write_for_ever(guest, vector):
    while True:
        guest.call("fd_write", 1, vector, 1, RESULT)


@pytest.mark.parametrize("size", [1, 3000, 70_000])
def test_a_time_limit_ends_a_write_that_nobody_reads(ends, system, size):
    """One byte has an end of line, which a terminal writes as two."""
    data = (b"\n" + b"x" * size)[:size]
    with Guest(pages=3, stdout=ends[1]) as guest:
        at = guest.put(data)
        vector = guest.put(struct.pack("<II", at, size))
        with guest.instance.time_limit(0.2), pytest.raises(Interrupt):
            write_for_ever(guest, vector)
    os.close(ends[0])  # a thread that still writes ends here


@pytest.mark.usefixtures("system")
def test_all_that_is_written_arrives_in_order():
    for name in ("pipe", "stream socket", "TCP socket"):
        reader, writer = ENDS[name]()
        received = []

        def read(reader=reader, received=received):
            while part := os.read(reader, 5000):
                received.append(part)

        thread = threading.Thread(target=read)
        thread.start()
        data = bytes(range(256)) * 100
        with Guest(pages=3, stdout=writer) as guest:
            for _ in range(20):
                assert guest.write(1, data) == len(data)
        os.close(writer)
        thread.join()
        os.close(reader)
        assert b"".join(received) == data * 20


def test_an_error_in_another_thread_is_raised():
    with pytest.raises(OSError, match="Bad file") as caught:
        nonblocking._in_another_thread(lambda: os.write(-1, b"x"), bool)
    assert caught.value.errno == errno.EBADF


def test_a_second_opening_of_the_programs_side_would_be_another_terminal():
    program, terminal = pty.openpty()
    assert nonblocking._open_again(program) is None
    again = nonblocking._open_again(terminal)
    assert os.ttyname(again) == os.ttyname(terminal)
    assert os.get_blocking(terminal)
    for fd in (program, terminal, again):
        os.close(fd)
