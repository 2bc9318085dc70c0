"""Takes the files out of a ZIP or TAR archive that a stranger sent.

Rules:
- An archive is judged as a whole before the first file is taken out: how many there are, how large
  they are, and how much larger than the archive. What it says of itself is not believed: reading
  stops where a limit is, whatever was announced.
- Files are taken out one at a time, when somebody asks for the next, and only into memory. Their
  names are words to call them by, and never a path.
- One file that cannot be taken out fails alone. An archive within an archive is not opened.
- The bytes are hostile, and parsed by code in Python: besides the files, what may be read is
  bounded, so that a directory of a million entries, or a header of a gigabyte, costs nothing.
"""

import zlib
from collections.abc import Iterator, Sized
from io import BytesIO
from tarfile import TarFile, TarInfo
from typing import IO, Final, NamedTuple, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from imaging.formats import ACCEPTED
from webapp.errors import (
    ArchiveRefused,
    BadRequest,
    TooManyPictures,
    UploadTooLarge,
    WebError,
    upload_too_large,
)

MAX_FILES: Final = 256
"""At 2.5 MB each these are more than an upload may have."""
MAX_ENTRIES: Final = 4 * MAX_FILES
"""Folders, and what some systems put beside each file, included."""
MAX_UNPACKED_BYTES: Final = 256 * 1024 * 1024
"""Four times the default for an upload. Pictures hardly ever get smaller in an archive."""
MAX_RATIO: Final = 100
"""So many times its own size an archive may unpack to. Deflate reaches 1032, with zeros."""
HARMLESS_BYTES: Final = 32 * 1024 * 1024
"""So much may come out of however little: a few drawings saved as BMP."""
MAX_DIRECTORY_BYTES: Final = 256 * 1024
"""Of a ZIP archive: 250 bytes for each entry."""
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_HEADERS_BYTES: Final = 2 * 1024 * 1024
"""Of a TAR archive: two kilobytes for each entry, which cost a slow CPU half a second."""
MAX_NAME: Final = 200

_PIECE: Final = 64 * 1024
_SAVE_AGAIN: Final = "Pack the pictures anew, as ZIP, TAR or TAR.GZ."


class Upload(NamedTuple):
    """One of many files in a request."""

    id: str
    """What its sender calls it, as far as that can be printed; maybe nothing."""
    data: bytes | WebError
    """Itself, or why it cannot be had."""


def is_archive(data: bytes) -> bool:
    """Whether ``data`` begins as an archive does: ZIP, TAR, or anything that gzip packed."""
    return (
        data[:4] in (b"PK\3\4", b"PK\5\6") or data[:2] == b"\x1f\x8b" or data[257:262] == b"ustar"
    )


def printable(name: str) -> str:
    """The end of ``name``, which tells most, with whatever cannot be printed replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[-MAX_NAME:])


def unpacked(archive: bytes, max_file_bytes: int) -> Iterator[Upload]:
    """The files in ``archive``, in its order. Folders and hidden files are left out.

    Raises:
        ArchiveRefused: It is damaged, or of a kind that is not taken.
        TooManyPictures: It holds more than MAX_FILES, or MAX_ENTRIES with all else.
        UploadTooLarge: It unpacks to more than it may.
    """
    most = min(MAX_UNPACKED_BYTES, max(HARMLESS_BYTES, MAX_RATIO * len(archive)))
    if archive[:2] == b"PK":
        return _from_zip(archive, most, max_file_bytes)
    for _ in _members(archive, most):
        pass
    return _from_tar(archive, most, max_file_bytes)


def _from_zip(archive: bytes, most: int, max_file_bytes: int) -> Iterator[Upload]:
    file = _Guarded(archive)
    try:
        directory = ZipFile(cast(IO[bytes], file))
    except WebError:
        raise
    except Exception as error:
        # Like decoders, the modules for archives raise whatever comes to hand.
        raise _damaged() from error
    file.most = len(archive)
    files = [entry for entry in directory.infolist() if _counts(entry.filename)]
    _judge(len(directory.filelist), len(files))
    _any(files)
    if sum(entry.file_size for entry in files) > most:
        raise _too_much(most)
    return (
        Upload(printable(entry.filename), _unzipped(directory, entry, max_file_bytes))
        for entry in files
    )


def _unzipped(directory: ZipFile, entry: ZipInfo, max_file_bytes: int) -> bytes | WebError:
    if entry.flag_bits & 1:
        return ArchiveRefused("This file is encrypted.", "Pack it without a password.")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return ArchiveRefused("This file is packed in a way that is not taken.", _SAVE_AGAIN)
    if entry.file_size > max_file_bytes:
        return upload_too_large(max_file_bytes)
    try:
        with directory.open(entry) as file:
            data = file.read(entry.file_size)
    except Exception:  # noqa: BLE001 - as above
        return _damaged()
    return data if len(data) == entry.file_size else _damaged()


def _from_tar(archive: bytes, most: int, max_file_bytes: int) -> Iterator[Upload]:
    for file, member in _members(archive, most):
        data: bytes | WebError
        if not member.isreg() or member.sparse is not None:
            data = ArchiveRefused("This is a link or a device, and no file.", ACCEPTED)
        elif member.size > max_file_bytes:
            data = upload_too_large(max_file_bytes)
        else:
            data = file.take(member.size)
        yield Upload(printable(member.name), data)


def _members(archive: bytes, most: int) -> Iterator[tuple["_Forward", TarInfo]]:
    """The entries that count, each with the archive at the first byte behind its header."""
    packed = archive[:2] == b"\x1f\x8b"
    file = _Forward(_Inflated(archive) if packed else BytesIO(archive), most)
    entries = files = 0
    try:
        tar = TarFile(fileobj=cast(IO[bytes], file), errors="replace")
        while member := tar.next():
            entries += 1
            files += (counts := not member.isdir() and _counts(member.name))
            _judge(entries, files)
            if counts:
                yield file, member
        if file.last.strip(b"\0"):
            # To tarfile, a header that is none is an end like any other.
            raise _damaged()
    except WebError:
        raise
    except Exception as error:
        raise _damaged() from error
    _any(files)


def _counts(name: str) -> bool:
    """Whether it is a file that somebody meant to send: no folder, whose name in a ZIP archive ends
    with a slash, and not the notes of a file manager."""
    is_note = name.startswith("__MACOSX/") or name.rpartition("/")[2][:1] == "."
    return not (is_note or name.endswith("/"))


def _judge(entries: int, files: int) -> None:
    if files > MAX_FILES or entries > MAX_ENTRIES:
        raise TooManyPictures(f"There are more than {MAX_FILES} files.")


def _any(files: Sized | int) -> None:
    if not files:
        raise BadRequest("There is no file in the archive.", "Put some pictures into it.")


def _damaged() -> ArchiveRefused:
    return ArchiveRefused("The archive is damaged, or is none that is taken.", _SAVE_AGAIN)


def _too_much(most: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"The archive unpacks to more than {most / 2**20:.3g} MiB.",
        f"Send fewer pictures at once: at most {MAX_UNPACKED_BYTES // 2**20} MiB of them, and "
        f"{MAX_RATIO} times the size of the archive.",
    )


class _Guarded(BytesIO):
    """An archive whose directory, which `ZipFile` reads in one piece, is not read if it is long."""

    def __init__(self, archive: bytes) -> None:
        super().__init__(archive)
        self._length = len(archive)
        self.most = MAX_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._length - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self.most:
            raise TooManyPictures("The archive's directory is too long.")
        return super().read(wanted)


class _Inflated:
    """What gzip packed, piece by piece. Of several such files in a row, only the first."""

    def __init__(self, packed: bytes) -> None:
        self._packed = BytesIO(packed)
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS + 16)

    def read(self, size: int) -> bytes:
        pieces = []
        while size and not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._packed.read(_PIECE)
            pieces.append(self._unpacker.decompress(packed, size))
            size -= len(pieces[-1])
            if not packed and not pieces[-1]:
                raise EOFError
        return b"".join(pieces)


class _Forward:
    """As much of a file as `TarFile` needs, which is read from the front to the back only."""

    def __init__(self, source: BytesIO | _Inflated, most: int) -> None:
        self._source = source
        self._most = most
        self._at = 0
        self._headers = 0
        self.last = b""
        """What was last read as a header, or a part of one."""

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:
            raise ValueError("an archive that goes backwards")
        while self._at < position:
            self.take(min(_PIECE, position - self._at))

    def read(self, size: int) -> bytes:
        self._headers += size
        if not 0 <= size <= MAX_HEADER_BYTES or self._headers > MAX_HEADERS_BYTES:
            raise ValueError("headers that are too long")
        self.last = self._source.read(size)
        self._advance(len(self.last))
        return self.last

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes. Raises EOFError if there are fewer."""
        data: bytes = self._source.read(size)
        self._advance(len(data))
        if len(data) < size:
            raise EOFError
        return data

    def _advance(self, size: int) -> None:
        self._at += size
        if self._at > self._most:
            raise _too_much(self._most)
