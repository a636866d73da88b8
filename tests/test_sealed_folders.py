"""Folders whose files have checksums: what is written anew gets a new one."""

from __future__ import annotations

import os

from editbench.base.files import check_file, read_seal, seal_folder, unsealed_folder, write_atomic


def test_a_file_that_is_written_within_one_tick_of_the_clock_gets_its_new_checksum(tmp_path):
    """As on a file system that keeps whole seconds."""
    path = tmp_path / "rows.txt"
    path.write_text("old")
    about = path.stat()
    seal_folder(tmp_path)
    with unsealed_folder(tmp_path):
        write_atomic(path, "new")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert check_file(tmp_path, "rows.txt").read_text() == "new"


def test_a_file_that_is_deleted_on_purpose_is_not_missed_and_one_that_was_gone_is(tmp_path):
    for name in ("rows.txt", "log.txt", "codes.txt"):
        (tmp_path / name).write_text(name)
    seal_folder(tmp_path)
    (tmp_path / "codes.txt").unlink()
    with unsealed_folder(tmp_path):
        (tmp_path / "log.txt").unlink()
    assert set(read_seal(tmp_path)["files"]) == {"rows.txt", "codes.txt"}
