"""Folders whose files have checksums: what is written anew gets a new one."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from editbench.base.errors import BadFile
from editbench.base.files import (
    CannotWrite,
    atomic_folder,
    check_file,
    check_folder,
    read_seal,
    seal_folder,
    sweep_partials,
    updated_folder,
    write_atomic,
)


def test_a_file_that_is_written_within_one_tick_of_the_clock_gets_its_new_checksum(tmp_path):
    """As on a file system that keeps whole seconds."""
    folder = tmp_path / "record"
    folder.mkdir()
    path = folder / "rows.txt"
    path.write_text("old")
    about = path.stat()
    seal_folder(folder)
    with updated_folder(folder) as place:
        write_atomic(place / "rows.txt", "new")
        os.utime(place / "rows.txt", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert check_file(folder, "rows.txt", "").read_text() == "new"


def test_a_file_that_is_deleted_on_purpose_is_not_missed_and_one_that_was_gone_is(tmp_path):
    folder = tmp_path / "record"
    folder.mkdir()
    for name in ("rows.txt", "log.txt", "codes.txt"):
        (folder / name).write_text(name)
    seal_folder(folder)
    (folder / "codes.txt").unlink()
    with updated_folder(folder, removed=["log.txt", "never.txt"]):
        pass
    assert set(read_seal(folder)["files"]) == {"rows.txt", "codes.txt"}
    assert not (folder / "log.txt").exists()


def test_a_file_that_was_altered_is_not_taken_as_sound_by_an_update_of_another(tmp_path):
    folder = tmp_path / "record"
    folder.mkdir()
    for name in ("rows.txt", "codes.txt"):
        (folder / name).write_text(name)
    seal_folder(folder)
    (folder / "codes.txt").write_text("other")
    with updated_folder(folder) as place:
        (place / "rows.txt").write_text("new")
    with pytest.raises(BadFile, match=r"codes\.txt is truncated or altered"):
        check_folder(folder, "")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_update_that_is_broken_off_leaves_the_folder_as_it_was(error, tmp_path):
    folder = tmp_path / "record"
    folder.mkdir()
    (folder / "rows.txt").write_text("old")
    seal_folder(folder)
    with pytest.raises(type(error)), updated_folder(folder) as place:
        (place / "rows.txt").write_text("new")
        raise error
    check_folder(folder, "")
    assert (folder / "rows.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


def test_a_folder_is_replaced_in_whole_even_if_the_old_one_cannot_be_removed(tmp_path, monkeypatch):
    """As when the process is killed while it removes the old one."""
    final = tmp_path / "folder"
    with atomic_folder(final) as partial:
        (partial / "old.txt").write_text("old")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with atomic_folder(final) as partial:
        (partial / "new.txt").write_text("new")
    assert [path.name for path in final.iterdir()] == ["new.txt"]
    monkeypatch.undo()
    sweep_partials(final)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_get_its_name(tmp_path, monkeypatch):
    """As on a full disk, where a folder may have no room for another entry."""
    final = tmp_path / "folder"
    with atomic_folder(final) as partial:
        (partial / "old.txt").write_text("old")
    rename = Path.rename

    def refused(path, target):
        if (path / "new.txt").exists():
            raise OSError(errno.ENOSPC, "full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(CannotWrite), atomic_folder(final) as partial:
        (partial / "new.txt").write_text("new")
    assert (final / "old.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_two_containers_whose_processes_have_one_number_keep_to_their_own_files(tmp_path):
    """Each container counts its processes from 1, and they may share a cache."""
    final = tmp_path / "folder"
    with atomic_folder(final) as first:
        (first / "rows.txt").write_text("first")
        with atomic_folder(final) as second:
            (second / "rows.txt").write_text("second")
        assert (first / "rows.txt").read_text() == "first"
        assert (final / "rows.txt").read_text() == "second"
    assert (final / "rows.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("way", ["file", "link", "dangling"])
def test_what_has_the_name_of_a_folder_is_replaced_and_a_linked_folder_is_kept(way, tmp_path):
    final = tmp_path / "folder"
    other = tmp_path / "other"
    if way == "file":
        final.write_text("in the way")
    else:
        final.symlink_to(other)
    if way == "link":
        other.mkdir()
        (other / "rows.txt").write_text("elsewhere")
    with atomic_folder(final) as partial:
        (partial / "rows.txt").write_text("new")
    assert (final / "rows.txt").read_text() == "new" and not final.is_symlink()
    if way == "link":
        assert (other / "rows.txt").read_text() == "elsewhere"
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("name", ["folder", "smile[open]"])
def test_partial_files_of_a_killed_writer_are_swept(name, tmp_path):
    final = tmp_path / name
    with atomic_folder(final) as partial:
        left = partial.with_name(f"{partial.name}0")
        left.mkdir()
    sweep_partials(final)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    """Otherwise a power failure may leave the name without the entries of its files."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_ino))
    with atomic_folder(tmp_path / "folder") as partial:
        (partial / "rows.txt").write_text("rows")
        inode = partial.stat().st_ino
    assert flushed.index(inode) < flushed.index(tmp_path.stat().st_ino)


def test_every_file_of_a_sealed_folder_is_checked(tmp_path):
    for name in ("rows.txt", "codes.txt"):
        (tmp_path / name).write_text(name)
    seal_folder(tmp_path, {"rows": [0, 3]})
    assert check_folder(tmp_path, "")["rows"] == [0, 3]
    (tmp_path / "rows.txt").write_text("other")
    with pytest.raises(BadFile, match=r"rows.txt is truncated or altered .*; start again"):
        check_folder(tmp_path, "start again")
    (tmp_path / "rows.txt").unlink()
    with pytest.raises(BadFile, match=r"rows.txt is missing; start again"):
        check_folder(tmp_path, "start again")


def test_a_file_that_is_replaced_within_one_tick_of_the_clock_is_checked_again(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("old")
    about = path.stat()
    seal_folder(tmp_path)
    check_folder(tmp_path, "")
    other = tmp_path.with_name("other")
    other.write_text("new")
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    other.replace(path)
    with pytest.raises(BadFile, match="altered"):
        check_folder(tmp_path, "")
