"""Keeps the jobs in an SQLite file, which survives a kill at any moment."""

import json
import sqlite3
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

STATES = ("queued", "running", "done", "failed", "canceled")
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL,
    state TEXT NOT NULL,
    fields TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    error TEXT NOT NULL DEFAULT ''
)
"""
INSERT = "INSERT INTO jobs (id, state, fields, created, started) VALUES (?, ?, ?, ?, ?)"
END = "UPDATE jobs SET state=?, error=?, finished=? WHERE id=? AND state IN ('queued', 'running')"


class DuplicateJobError(ValueError):
    """Refuses a job whose id another has."""


@dataclass(frozen=True)
class Job:
    """Holds one row."""

    id: str  # of the job, and of the take that it makes
    state: str  # one of ``STATES``
    # what it is made from, as JSON holds ``PieceFields``, with ``steers`` of a live one
    fields: dict[str, Any]
    created: float  # seconds since 1970, as are started and finished, which may be None
    started: float | None
    finished: float | None
    error: str  # why it failed; "" otherwise


class JobStore:
    """Keeps jobs in an SQLite file, made if missing; every method may be called from any thread.

    Raises:
        OSError: it cannot be opened, or another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.unwritten: dict[str, dict[str, Any]] = {}  # ends of jobs, by id
        self.file_lock, self.database = self._open()
        self._run("UPDATE jobs SET state = 'queued', started = NULL WHERE state = 'running'")

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.database.close()
        self.file_lock.release()

    def _open(self, former: sqlite3.Connection | None = None) -> tuple[Any, sqlite3.Connection]:
        """Lock and open the file, with the jobs of a ``former`` one where it was deleted."""
        file_lock = FileLock(self.path.with_suffix(".lock"), timeout=0)
        try:
            file_lock.acquire()
            database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            if former is not None:
                former.backup(database)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute(SCHEMA)
            return file_lock, database
        except Timeout as error:
            raise OSError(f"{self.path.parent} is in use by another partita serve") from error
        except sqlite3.Error as error:
            raise OSError(f"{self.path} cannot be opened: {error}") from error

    def add(self, id: str, fields: dict[str, Any], state: str = "queued") -> None:
        """Write down a job; where the file was deleted while it was open, make it again.

        Raises:
            DuplicateJobError: the id is taken.
            OSError: the file was deleted and cannot be made again.
        """
        with self.lock:
            if not self.path.exists():
                self.file_lock, self.database = self._open(self.database)
        now = time.time()
        started = now if state == "running" else None
        row = (id, state, json.dumps(fields), now, started)
        try:
            self._run(INSERT, row)
        except sqlite3.IntegrityError as error:
            raise DuplicateJobError(f"id must be new, got {id!r}, which a job has") from error

    def begin(self, id: str) -> None:
        """Say that a job is being made."""
        self._run("UPDATE jobs SET state='running', started=? WHERE id=?", (time.time(), id))

    def end(self, id: str, state: str, error: str = "") -> None:
        """Say what became of a job that has not ended yet."""
        self.unwritten[id] = {"state": state, "error": error, "finished": time.time()}
        for ended, facts in list(self.unwritten.items()):  # also of jobs that found a full disk
            self._run(END, (*facts.values(), ended))
            self.unwritten.pop(ended, None)

    def set_fields(self, id: str, fields: dict[str, Any]) -> None:
        """Change what a job is made from, when it is steered."""
        self._run("UPDATE jobs SET fields=? WHERE id=?", (json.dumps(fields), id))

    def get(self, id: str) -> Job | None:
        """Find a job."""
        found = self._select("WHERE id=?", (id,))
        return found[0] if found else None

    def newest(self, limit: int) -> list[Job]:
        """List the jobs that have not ended, in their order, and the newest of those that have."""
        ended = "state NOT IN ('queued', 'running') ORDER BY finished DESC LIMIT ?"
        return self.unfinished() + self._select(f"WHERE {ended}", (limit,))

    def unfinished(self) -> list[Job]:
        """List the jobs that are queued or running, in their order."""
        return self._select("WHERE state IN ('queued', 'running') ORDER BY number")

    def count(self) -> dict[str, int]:
        """Count the jobs of each state."""
        with self.lock:
            rows = self.database.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state")
            return dict.fromkeys(STATES, 0) | dict(rows.fetchall())

    def _select(self, where: str, values: tuple[Any, ...] = ()) -> list[Job]:
        columns = "id, state, fields, created, started, finished, error"
        with self.lock:
            rows = self.database.execute(f"SELECT {columns} FROM jobs {where}", values).fetchall()
        jobs = [Job(row[0], row[1], json.loads(row[2]), *row[3:]) for row in rows]
        return [replace(job, **self.unwritten.get(job.id, {})) for job in jobs]

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        with self.lock:
            self.database.execute(statement, values)
