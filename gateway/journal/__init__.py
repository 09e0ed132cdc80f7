"""The append-only log between the relay and the observer: JSON Lines in segments on disk.

    <root>/<writer id>/<base offset, 20 digits>.jsonl

A writer is one life of one relay process; its id sorts by the time at which it began. An *offset* counts the bytes
that a writer ever wrote, and a segment's name is the offset of its first byte, so that one integer for each writer is
a durable position, whatever has been rotated or deleted since.

The laws: one process appends to a writer's folder, the one that holds the folder's lock. A line is there whole or not
at all: readers stop at the last newline. Each segment begins with the start lines of the calls that were then open, so
that the last segment alone tells what a dead writer left open.
"""

from gateway.journal.janitor import Janitor
from gateway.journal.journal_id import journal_id
from gateway.journal.reader import Batch, Entry, Reader
from gateway.journal.writer import Writer

__all__ = ["Batch", "Entry", "Janitor", "Reader", "Writer", "journal_id"]
