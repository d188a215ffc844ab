"""A path never leaves its preopened folder: every known way out, with every call, both ways."""

import os
import threading
from pathlib import Path

import pytest
from wasi_guest import FOLLOW, RESULT, Guest

from asm_libcalls.toy_jit.wasi.abi import OFlag
from asm_libcalls.toy_jit.wasi.errors import Errno

pytestmark = pytest.mark.usefixtures("machine_code", "resolver")

SECRET = b"what is outside"


@pytest.fixture
def folders(tmp_path):
    """A preopened folder, and one beside it, to which all kinds of links lead."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside / "folder", inside / "sub" / "deep"):
        folder.mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (outside / "empty").mkdir()
    (inside / "own").write_bytes(b"own")
    links = {
        "up": "../outside/secret",
        "absolute": str(outside / "secret"),
        "up_folder": "../outside",
        "absolute_folder": str(outside),
        "root": "/",
        "chain": "sub/../up_folder",
        "dangling": "../outside/new",
        "dangling_absolute": str(outside / "new"),
        "parent": "..",
        "sub/parent": "../..",
        "sub/deep/secret": "../../../outside/secret",
        "magic": "/proc/self/root",
        "inner": "sub/deep",
    }
    for name, target in links.items():
        (inside / name).symlink_to(target)
    return inside, outside


WAYS = [
    "../outside{}",
    "sub/../../outside{}",
    "sub/deep/../../../outside{}",
    "./../outside{}",
    ".././outside{}",
    "inner/../../../outside{}",
    "{outside}{}",
    "/{outside}{}",
    "up_folder{}",
    "absolute_folder{}",
    "chain{}",
    "sub/../chain{}",
    "root{outside}{}",
    "magic{outside}{}",
    "parent/outside{}",
    "sub/parent/outside{}",
    "up_folder/../outside{}",
    "up_folder/folder/..{}",
]
LAST = [
    "up",
    "absolute",
    "dangling",
    "dangling_absolute",
    "sub/deep/secret",
    "..",
    "parent",
    "root",
]
LAST += ["sub/../..", "magic", "up_folder", "up_folder/", "absolute_folder/", "up_folder/."]


def paths(outside):
    """List the paths that lead out."""
    for way in WAYS:
        for end in ("", "/", "/secret", "/folder", "/empty", "/new"):
            yield way.format(end, outside=outside)
    yield from LAST


def snapshot(folder):
    """Return the contents of a folder, and the times of change."""
    return {
        str(path.relative_to(folder)): (
            (s := path.lstat()).st_ino, s.st_mode, s.st_nlink, s.st_size, s.st_mtime_ns,
            s.st_atime_ns, s.st_ctime_ns,
        )
        for path in [folder, *folder.rglob("*")]
    }  # fmt: skip


def opens(guest, path, oflags=0, **options):
    fd = guest.open(path, oflags, **options)
    if isinstance(fd, Errno):
        return fd
    guest.ok("fd_filestat_get", fd, 2048)
    return guest.u64(2048 + 8)  # the inode


def stats(guest, path, follow):
    found = guest.call("path_filestat_get", 3, follow, path, 2048)
    return found if found else guest.u64(2048 + 8)


FILE_CREATE = OFlag.CREAT | OFlag.EXCL
CALLS = {
    "open": opens,
    "open nofollow": lambda g, p: opens(g, p, follow=0),
    "open folder": lambda g, p: opens(g, p, OFlag.DIRECTORY),
    "create": lambda g, p: opens(g, p, OFlag.CREAT, writes=True),
    "create nofollow": lambda g, p: opens(g, p, OFlag.CREAT, writes=True, follow=0),
    "create new": lambda g, p: opens(g, p, FILE_CREATE, writes=True),
    "truncate": lambda g, p: opens(g, p, OFlag.TRUNC, writes=True),
    "stat": lambda g, p: stats(g, p, FOLLOW),
    "lstat": lambda g, p: stats(g, p, 0),
    "times": lambda g, p: g.call("path_filestat_set_times", 3, FOLLOW, p, 5, 6, 5),
    "link times": lambda g, p: g.call("path_filestat_set_times", 3, 0, p, 5, 6, 5),
    "mkdir": lambda g, p: g.call("path_create_directory", 3, p),
    "link from": lambda g, p: g.call("path_link", 3, 0, p, 3, "linked"),
    "link from follow": lambda g, p: g.call("path_link", 3, FOLLOW, p, 3, "linked"),
    "link to": lambda g, p: g.call("path_link", 3, 0, "own", 3, p),
    "rename from": lambda g, p: g.call("path_rename", 3, p, 3, "renamed"),
    "rename to": lambda g, p: g.call("path_rename", 3, "own", 3, p),
    "symlink": lambda g, p: g.call("path_symlink", "own", 3, p),
    "rmdir": lambda g, p: g.call("path_remove_directory", 3, p),
    "unlink": lambda g, p: g.call("path_unlink_file", 3, p),
}


@pytest.mark.parametrize("name", CALLS)
def test_ways_out(folders, name):
    inside, outside = folders
    before = snapshot(outside)
    # The folder above is outside too, but contains the folder beside.
    inodes = {found[0] for found in before.values()} | {outside.parent.stat().st_ino}
    inodes.add(Path("/").stat().st_ino)
    found_inside = 0
    with Guest(preopens={"/": inside}) as guest:
        for path in paths(outside):
            (inside / "own").write_bytes(b"own")
            result = CALLS[name](guest, path)
            if not isinstance(result, Errno):
                assert result not in inodes, path
                found_inside += 1
            after = snapshot(outside)
            assert after == before, path
            assert sorted(p.name for p in outside.parent.iterdir()) == ["inside", "outside"], path
    # What is done to a link itself is done inside.
    assert not found_inside or name in ("lstat", "create new", "create nofollow")


@pytest.mark.parametrize("end", ["", "/", "/secret", "/folder", "/nothing", "/secret/x"])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_refused_as_one(folders, way, end):
    """By EPERM, as Wasmtime does: the guest does not learn what is outside."""
    inside, outside = folders
    with Guest(preopens={"/": inside}) as guest:
        assert guest.open(way.format(end, outside=outside)) == Errno.PERM


def test_links_inside_are_followed(folders):
    inside, _ = folders
    (inside / "sub/deep/file").write_bytes(b"here")
    (inside / "sub/back").symlink_to("../inner/file")
    with Guest(preopens={"/": inside}) as guest:
        for path in (
            "inner/file",
            "sub/back",
            "sub/deep/../../sub/./deep//file",
            "inner/../deep/file",
        ):
            fd = guest.open(path)
            assert guest.read(fd) == b"here", path
        assert guest.open("sub/back", follow=0) == Errno.LOOP
        assert not isinstance(guest.open("inner/", OFlag.DIRECTORY, follow=0), Errno)


def test_a_guest_cannot_make_a_link_that_leads_out(folders):
    inside, outside = folders
    with Guest(preopens={"/": inside}) as guest:
        assert guest.call("path_symlink", str(outside), 3, "made") == Errno.PERM
        guest.ok("path_symlink", "../outside/secret", 3, "made")  # it leads nowhere, for the guest
        guest.ok("path_symlink", "made", 3, "again")
        for path in ("made", "again"):
            assert guest.open(path) == Errno.PERM
            assert stats(guest, path, FOLLOW) == Errno.PERM
        guest.ok("path_link", 3, 0, "made", 3, "hard")  # the link, not what it leads to
        assert guest.open("hard") == Errno.PERM
        assert str((inside / "hard").readlink()) == "../outside/secret"
        guest.ok("path_readlink", 3, "hard", 2048, 100, RESULT)
        assert bytes(guest.memory[2048 : 2048 + guest.u32()]) == b"../outside/secret"


def test_a_folder_of_the_guest_is_a_limit_of_its_own(folders):
    inside, _ = folders
    with Guest(preopens={"/": inside}) as guest:
        sub = guest.open("sub", OFlag.DIRECTORY)
        assert guest.open("../own", fd=sub) == Errno.PERM
        assert guest.open("deep/../../own", fd=sub) == Errno.PERM
        assert not isinstance(guest.open("deep/..", fd=sub), Errno)


def test_loops_and_lengths(folders):
    inside, _ = folders
    (inside / "loop").symlink_to("loop")
    (inside / "ping").symlink_to("sub/pong")
    (inside / "sub/pong").symlink_to("../ping")
    (inside / "l0").symlink_to("own")
    for i in range(50):
        (inside / f"l{i + 1}").symlink_to(f"l{i}")
    with Guest(preopens={"/": inside}) as guest:
        for path in ("loop", "loop/x", "ping", "ping/x", "l50", "l50/x"):
            assert guest.open(path) == Errno.LOOP, path
        assert guest.read(guest.open("l30")) == b"own"
        assert guest.open("x" * 256) == Errno.NAMETOOLONG
        assert guest.open("sub/" * 1024) == Errno.NAMETOOLONG
        assert guest.open("./" * 2000 + "own") == 4 + 1
        assert guest.open("sub/../" * 580 + "own") == 4 + 2
        assert guest.open("") == Errno.NOENT
        assert guest.open("own\0") == Errno.INVAL
        assert guest.open(b"\xff") == Errno.ILSEQ


def test_no_descriptor_of_the_host_is_left(folders):
    inside, outside = folders
    with Guest(preopens={"/": inside}) as guest:
        before = os.listdir("/proc/self/fd")  # noqa: PTH208 (names)
        for path in [*paths(outside), "own", "sub/deep", "nothing", "own/x", "loop"]:
            for name in ("stat", "lstat", "mkdir", "unlink", "rename from", "symlink", "link to"):
                CALLS[name](guest, path)
            fd = guest.open(path)
            if not isinstance(fd, Errno):
                guest.ok("fd_close", fd)
        assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


# -- while others change what is on the way

ROUNDS = 400


class Swapping:
    """A thread that goes through some steps again and again, while the context is entered."""

    def __init__(self, *steps):
        self.steps = steps
        self.done = threading.Event()
        self.rounds = 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done.is_set():
            for step in self.steps:
                step()
            self.rounds += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.done.set()
        self.thread.join()


def attack(guest, path, swapping, wanted=None):
    """Read a path, and ask what it is, until both sides have been there often; return all found.

    With `wanted`, go on until that was read, on a busy machine too.
    """
    found, inodes = set(), set()
    tries = 0
    missing = set() if wanted is None else {wanted}
    while tries < ROUNDS or swapping.rounds < ROUNDS or (missing - found and tries < 500 * ROUNDS):
        tries += 1
        fd = guest.open(path)
        if isinstance(fd, Errno):
            found.add(fd)
        else:
            found.add(guest.read(fd))
            guest.ok("fd_close", fd)
        inodes.add(stats(guest, path, FOLLOW))
        guest.call("path_filestat_set_times", 3, FOLLOW, path, 5, 6, 5)
    return found, inodes


def test_a_folder_becomes_a_link(folders):
    inside, outside = folders
    (inside / "sub/secret").write_bytes(b"fine")
    before = snapshot(outside)
    swap = (
        lambda: (inside / "sub").rename(inside / "aside"),
        lambda: (inside / "sub").symlink_to("../outside"),
        (inside / "sub").unlink,
        lambda: (inside / "aside").rename(inside / "sub"),
    )
    with Guest(preopens={"/": inside}) as guest, Swapping(*swap) as swapping:
        found, inodes = attack(guest, "sub/secret", swapping, b"fine")
    assert b"fine" in found
    assert SECRET not in found
    assert before["secret"][0] not in inodes
    assert snapshot(outside) == before


def test_a_file_becomes_a_link(folders):
    inside, outside = folders
    before = snapshot(outside)
    swap = (
        lambda: (inside / "up").rename(inside / "x"),
        lambda: (inside / "own").rename(inside / "up"),
        lambda: (inside / "up").rename(inside / "own"),
        lambda: (inside / "x").rename(inside / "up"),
    )
    with Guest(preopens={"/": inside}) as guest, Swapping(*swap) as swapping:
        found, inodes = attack(guest, "up", swapping)
    assert SECRET not in found
    assert before["secret"][0] not in inodes
    assert snapshot(outside) == before


def test_a_folder_is_moved_out_while_a_path_goes_up_from_it(folders):
    inside, outside = folders
    secret = outside / "secret"
    (inside / "secret").write_bytes(b"fine")
    swap = (
        lambda: (inside / "sub").rename(outside / "folder" / "sub"),
        lambda: (outside / "folder" / "sub").rename(inside / "sub"),
    )
    inode = secret.stat().st_ino
    with Guest(preopens={"/": inside}) as guest, Swapping(*swap) as swapping:
        found, inodes = attack(guest, "sub/deep/../../secret", swapping)
    assert SECRET not in found
    assert inode not in inodes
    assert secret.read_bytes() == SECRET
    assert secret.stat().st_mtime_ns > 6
