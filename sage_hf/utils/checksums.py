"""Checksums of files that are read back: one that was cut short or changed is found, not believed.

A file of JSON or safetensors holds the digest of its own bytes, in a field `checksum` that counts as zeros. A file
that has no place for it, such as an array of NumPy's, has its digest in the file that goes with it.
"""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import xxhash
from safetensors import SafetensorError

from ..errors import SageError

logger = logging.getLogger(__name__)

CHECKSUM = "checksum"
# What the field holds before the file is sealed.
UNSEALED = "0" * 32
# What a file that cannot be read, or is not what was written, is found by; the last three of an array's header.
DAMAGE = (OSError, ValueError, KeyError, TypeError, SafetensorError, SageError, EOFError, SyntaxError, TokenError)
_FIELD = re.compile(rb'"checksum": ?"([^"]{32})"')
# The first field of JSON where it was one for a checksum, whatever was changed in it.
_CHANGED_FIELD = re.compile(rb'\A\{\s*"[^"]{8}": ?"[^"]{32}"')
# The field lies in the first of them: first in JSON, in the header of safetensors.
_BLOCK_BYTES = 2**20


def file_digest(path: Path) -> str:
    """32 hexadecimal digits from a file's bytes.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _updated(xxhash.xxh3_128(), file).hexdigest()


def seal(path: Path) -> None:
    """Fills in the checksum of a file that has a field of zeros for it.

    Raises:
        OSError: It cannot be read or written.
    """
    with path.open("rb+") as file:
        digest, place, _ = _own_digest(file)
        assert place is not None
        file.seek(place)
        file.write(digest.encode())


def sealed(content: str) -> str:
    """A text that has a field of zeros, with its checksum there."""
    digest, place, _ = _own_digest(BytesIO(content.encode()))
    assert place is not None
    held = content.encode()
    return (held[:place] + digest.encode() + held[place + len(digest) :]).decode()


def check_seal(file: Path | str, *, is_needed: bool = True) -> None:
    """Refuses a file, or the text of one, that is not as it was sealed.

    Args:
        file: The path, or the text.
        is_needed: Whether there must be a checksum; files of older versions have none.

    Raises:
        ValueError: It was changed or cut.
        OSError: It cannot be read.
    """
    with BytesIO(file.encode()) if isinstance(file, str) else file.open("rb") as opened:
        digest, _, noted = _own_digest(opened)
        opened.seek(0)
        is_changed = noted is None and _CHANGED_FIELD.match(opened.read(100)) is not None
    if noted is None and (is_needed or is_changed):
        raise ValueError("it has no checksum" if not is_changed else "its checksum cannot be read")
    if noted not in (None, digest):
        raise ValueError("its checksum is another, so it was changed or cut after it was written")


def set_aside(path: Path, why: object, then: str) -> bool:
    """Gives a damaged file or folder the name `NAME.damaged`, and warns; a file that is not there is only told of.

    Args:
        path: The file.
        why: What is wrong.
        then: What happens now, after "so": "its rows are computed again".

    Returns:
        Whether the name is free now.
    """
    aside = path.with_name(f"{path.name}.damaged")
    try:
        with suppress(FileNotFoundError):
            if path.exists():
                shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)
            path.replace(aside)
    except OSError as error:
        logger.warning("%s is damaged (%s), and cannot be renamed: %s", path, why, error)
        return False
    logger.warning("%s is missing or damaged (%s), so %s. What was there is kept as %s.", path, why, then, aside.name)
    return True


def _own_digest(file: BinaryIO) -> tuple[str, int | None, str | None]:
    """The digest of a file with zeros in its field, where the field's value lies, and what it holds."""
    first = file.read(_BLOCK_BYTES)
    field = _FIELD.search(first)
    if field is None:
        return _updated(xxhash.xxh3_128(first), file).hexdigest(), None, None
    digest = xxhash.xxh3_128(first[: field.start(1)] + UNSEALED.encode() + first[field.end(1) :])
    return _updated(digest, file).hexdigest(), field.start(1), field[1].decode(errors="replace")


def _updated(digest: xxhash.xxh3_128, file: BinaryIO) -> xxhash.xxh3_128:
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest
