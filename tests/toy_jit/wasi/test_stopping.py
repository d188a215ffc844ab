"""Calls that wait end when the guest's time is up, on interrupt(), and by signal handlers."""

import gc
import os
import signal
import struct
import threading

import pytest
from wasi_guest import RESULT, Guest

from asm_libcalls import Interrupt
from asm_libcalls.toy_jit.wasi.abi import FdFlag
from asm_libcalls.toy_jit.wasi.errors import Errno

pytestmark = pytest.mark.usefixtures("machine_code")

HOUR = 3_600_000_000_000


def sleep(guest):
    """Poll a clock for an hour."""
    at = guest.put(struct.pack("<QB7xI4xQQH6x", 7, 0, 1, HOUR, 0, 0))
    return guest.call("poll_oneoff", at, 4096, 1, RESULT)


def poll_stdin(guest):
    at = guest.put(struct.pack("<QB7xI28x", 7, 1, 0))
    return guest.call("poll_oneoff", at, 4096, 1, RESULT)


def write_much(guest):
    """Write more than a pipe holds."""
    while not isinstance(found := guest.write(1, b"x" * 30_000), Errno):
        pass
    return found


WAITS = {
    "poll of a clock": sleep,
    "poll of stdin": poll_stdin,
    "read of a pipe": lambda guest: guest.read(0),
    "write to a full pipe": write_much,
    "opening a FIFO that nobody reads": lambda guest: guest.open("fifo", reads=False, writes=True),
    "reading a FIFO": lambda guest: guest.read(guest.open("fifo")),
}


@pytest.fixture
def guest(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    with Guest(stdin=in_read, stdout=out_write, preopens={"/": tmp_path}) as guest:
        yield guest
    for fd in (in_read, in_write, out_read, out_write):
        os.close(fd)


def prepare(name, guest, tmp_path):
    """Open the other end where the wait needs one."""
    if name == "reading a FIFO":
        return os.open(tmp_path / "fifo", os.O_RDWR)
    return os.open(os.devnull, os.O_RDONLY)


@pytest.mark.parametrize("name", WAITS)
def test_time_limit(guest, name, tmp_path):
    other = prepare(name, guest, tmp_path)
    with guest.instance.time_limit(0.1), pytest.raises(Interrupt):
        WAITS[name](guest)
    os.close(other)
    assert guest.call("sched_yield") == Errno.SUCCESS  # it goes on when the limit is over


@pytest.mark.parametrize("name", WAITS)
def test_interrupt(guest, name, tmp_path):
    other = prepare(name, guest, tmp_path)
    done = threading.Event()

    def interrupt():
        while not done.wait(0.02):
            guest.instance.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupt):
        WAITS[name](guest)
    done.set()
    thread.join()
    os.close(other)


class Told(Exception):
    """The handler's exception."""


@pytest.mark.parametrize("kind", [Told, TimeoutError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("name", WAITS)
def test_signal_handlers(guest, name, tmp_path, kind):
    """Also an OSError without a number, which is no answer of the host."""

    def handler(number, frame):
        raise kind

    other = prepare(name, guest, tmp_path)
    gc.collect()  # a handler's exception in a finalizer would only be reported
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(kind):
            WAITS[name](guest)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    os.close(other)


def test_what_comes_while_a_read_waits(guest, tmp_path):
    with (tmp_path / "fifo").open("r+b", buffering=0) as other:
        fd = guest.open("fifo")
        thread = threading.Timer(0.2, other.write, [b"here"])
        thread.start()
        assert guest.read(fd) == b"here"
        thread.join()


def test_a_writer_waits_for_its_reader(guest, tmp_path):
    found = []

    def read():
        with (tmp_path / "fifo").open("rb") as file:
            found.append(file.read())

    thread = threading.Timer(0.2, read)
    thread.start()
    fd = guest.open("fifo", reads=False, writes=True)
    data = bytes(range(256)) * 100
    for _ in range(4):
        assert guest.write(fd, data) == len(data)
    guest.ok("fd_close", fd)
    thread.join()
    assert found == [data * 4]


def test_without_blocking(guest, tmp_path):
    guest.ok("fd_fdstat_set_flags", 0, FdFlag.NONBLOCK)
    assert guest.read(0) == Errno.AGAIN
    guest.ok("fd_fdstat_set_flags", 1, FdFlag.NONBLOCK)
    written = 0
    while not isinstance(found := guest.write(1, b"x" * 30_000), Errno):
        written += found
    assert found == Errno.AGAIN
    assert written >= 4096
    assert os.get_blocking(1)  # the flag is the guest's; others have the host's descriptor too
    assert guest.open("fifo", reads=False, writes=True, flags=FdFlag.NONBLOCK) == Errno.NXIO
    fd = guest.open("fifo", flags=FdFlag.NONBLOCK)
    assert guest.read(fd) == b""  # no writer is left: the end
    with (tmp_path / "fifo").open("r+b", buffering=0):
        assert guest.read(fd) == Errno.AGAIN
