"""Records in a relational database, through SQLAlchemy: SQLite on one machine, PostgreSQL (Aurora PostgreSQL in the deployment).

Tables are made when they are missing, so the first start needs no step of its own. Nothing else imports SQLAlchemy.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    and_,
    create_engine,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateTable

from adapters.web.records import Assignment, ExamRecord, RecordsUnavailable, School, SchoolKey
from core.participant import ExamKey
from core.roster import RosterLine

_PAGE = 500
_TIMEOUT_SECONDS = 5
_T = TypeVar("_T", bound=Struct)


def _text(name: str, *, key: bool = False) -> Column[str]:
    # "C" sorts by code point, as SQLite and DynamoDB do: so a page's last id is where the next page begins, everywhere
    kind = String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    return Column(name, kind, primary_key=key, nullable=False)


def _number(name: str, *, null: bool = True) -> Column[float]:
    return Column(name, Float(53), nullable=null)


_metadata = MetaData()
_schools = Table(
    "proctorwire_schools",
    _metadata,
    _text("school", key=True),
    _text("name"),
    _number("retention_days"),
    _number("created_at", null=False),
)
_keys = Table(
    "proctorwire_keys",
    _metadata,
    _text("school", key=True),
    _text("key_id", key=True),
    _text("digest"),
    _text("label"),
    _number("created_at", null=False),
    _text("created_by"),
    _number("expires_at"),
    _number("revoked_at"),
    UniqueConstraint("digest"),
)
_exams = Table(
    "proctorwire_exams",
    _metadata,
    _text("school", key=True),
    _text("quiz_id", key=True),
    _text("name"),
    _number("created_at", null=False),
    _number("opened_at"),
    _number("closed_at"),
    _number("purged_at"),
)
_lines = Table(
    "proctorwire_roster",
    _metadata,
    _text("school", key=True),
    _text("quiz_id", key=True),
    _text("student_id", key=True),
    _text("name"),
    _text("group"),
)
_assignments = Table(
    "proctorwire_assignments",
    _metadata,
    _text("school", key=True),
    _text("quiz_id", key=True),
    _text("proctor_id", key=True),
    _text("name"),
    _text("group"),
    _number("assigned_at", null=False),
    _text("assigned_by"),
)


class SqlRecords:
    """`Records` in the database of a URL."""

    def __init__(self, url: str, password: Callable[[], str] | None = None) -> None:
        """`password`: asked for each new connection, since a managed database changes it. Raises ValueError for a wrong URL."""
        self._engine = _engine(url, password)
        self._insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        self._has_tables = False
        # a database in memory is one connection for all threads
        self._turn = threading.RLock() if isinstance(self._engine.pool, StaticPool) else contextlib.nullcontext()

    def check(self) -> None:
        """See `Records`."""
        with self._step() as step:
            step.execute(select(_schools.c.school).limit(1))

    def put_school(self, school: School) -> None:
        """See `Records`."""
        self._put(_schools, [msgspec.structs.asdict(school)])

    def school(self, school: str) -> School | None:
        """See `Records`."""
        return self._one(School, _schools, school=school)

    def schools(self) -> Iterator[School]:
        """See `Records`."""
        return self._pages(School, _schools, "school", "")

    def add_key(self, key: SchoolKey) -> bool:
        """See `Records`."""
        try:
            with self._step() as step:
                step.execute(insert(_keys).values(msgspec.structs.asdict(key)))
        except IntegrityError:
            return False
        return True

    def put_key(self, key: SchoolKey) -> bool:
        """See `Records`."""
        changed = {"label": key.label, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
        with self._step() as step:
            wanted = _where(_keys, school=key.school, key_id=key.key_id)
            return step.execute(update(_keys).where(wanted).values(changed)).rowcount == 1

    def key_of(self, digest: str) -> SchoolKey | None:
        """See `Records`."""
        return self._one(SchoolKey, _keys, digest=digest)

    def keys(self, school: str) -> list[SchoolKey]:
        """See `Records`."""
        return list(self._pages(SchoolKey, _keys, "key_id", "", school=school))

    def put_exam(self, exam: ExamRecord) -> None:
        """See `Records`."""
        self._put(_exams, [msgspec.structs.asdict(exam)])

    def exam(self, key: ExamKey) -> ExamRecord | None:
        """See `Records`."""
        return self._one(ExamRecord, _exams, **key._asdict())

    def exams(self, school: str, after: str = "") -> Iterator[ExamRecord]:
        """See `Records`."""
        return self._pages(ExamRecord, _exams, "quiz_id", after, school=school)

    def put_lines(self, exam: ExamKey, lines: Sequence[RosterLine]) -> None:
        """See `Records`. All lines in one step."""
        rows = {str(line.student_id): msgspec.structs.asdict(line) for line in lines}
        self._put(_lines, [{**exam._asdict(), **row, "student_id": who} for who, row in rows.items()])

    def drop_line(self, exam: ExamKey, student_id: str) -> bool:
        """See `Records`."""
        return self._delete(_lines, **exam._asdict(), student_id=student_id) == 1

    def lines(self, exam: ExamKey, after: str = "") -> Iterator[RosterLine]:
        """See `Records`."""
        return self._pages(RosterLine, _lines, "student_id", after, **exam._asdict())

    def assign(self, exam: ExamKey, assignment: Assignment) -> None:
        """See `Records`."""
        self._put(_assignments, [{**exam._asdict(), **msgspec.structs.asdict(assignment)}])

    def unassign(self, exam: ExamKey, proctor_id: str) -> bool:
        """See `Records`."""
        return self._delete(_assignments, **exam._asdict(), proctor_id=proctor_id) == 1

    def assignments(self, exam: ExamKey) -> list[Assignment]:
        """See `Records`."""
        return list(self._pages(Assignment, _assignments, "proctor_id", "", **exam._asdict()))

    def purge(self, exam: ExamKey) -> int:
        """See `Records`."""
        return self._delete(_lines, **exam._asdict()) + self._delete(_assignments, **exam._asdict())

    def close(self) -> None:
        """See `Records`."""
        self._engine.dispose()

    # --- inside ---

    @contextlib.contextmanager
    def _step(self) -> Iterator[Connection]:
        """One transaction. What an unreachable or busy database raises becomes `RecordsUnavailable`."""
        try:
            with self._turn:
                if not self._has_tables:
                    self._make_tables()
                with self._engine.begin() as step:
                    yield step
        except IntegrityError:
            raise
        except (SQLAlchemyError, OSError) as error:
            raise RecordsUnavailable(f"the records' database: {error}") from error

    def _make_tables(self) -> None:
        """Make the tables that are missing. Others may do so at the same moment: PostgreSQL may then refuse one of them, once."""
        with self._engine.connect() as connection:
            try:
                self._make_tables_on(connection)
            except DBAPIError:
                self._make_tables_on(connection)
        self._has_tables = True

    @staticmethod
    def _make_tables_on(connection: Connection) -> None:
        with connection.begin():
            for table in _metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))

    def _put(self, table: Table, rows: list[dict[str, Any]]) -> None:
        names = [column.name for column in table.primary_key]
        for start in range(0, len(rows), _PAGE):
            statement = self._insert(table).values(rows[start : start + _PAGE])
            changed = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in names}
            with self._step() as step:
                step.execute(statement.on_conflict_do_update(index_elements=names, set_=changed))

    def _delete(self, table: Table, **key: str) -> int:
        with self._step() as step:
            return int(step.execute(delete(table).where(_where(table, **key))).rowcount)

    def _one(self, kind: type[_T], table: Table, **key: str) -> _T | None:
        with self._step() as step:
            row = step.execute(select(table).where(_where(table, **key))).mappings().first()
        return None if row is None else _struct(kind, row)

    def _pages(self, kind: type[_T], table: Table, order: str, after: str, **key: str) -> Iterator[_T]:
        """Rows behind an id, a page at a time: no transaction is open while the caller works."""
        while True:
            wanted = and_(_where(table, **key), table.c[order] > after) if key else table.c[order] > after
            with self._step() as step:
                rows = step.execute(select(table).where(wanted).order_by(table.c[order]).limit(_PAGE)).mappings().all()
            for row in rows:
                yield _struct(kind, row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][order]


def _where(table: Table, **key: str) -> Any:
    return and_(*(table.c[name] == value for name, value in key.items()))


def _struct(kind: type[_T], row: Any) -> _T:
    return kind(**{name: row[name] for name in kind.__struct_fields__})


def _engine(text: str, password: Callable[[], str] | None) -> Engine:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ValueError(
            f"not a database URL, such as sqlite:///records.sqlite or postgresql://USER@HOST/NAME: {error}"
        ) from error
    if url.drivername == "sqlite":
        return _sqlite(url)
    if url.drivername not in ("postgresql", "postgresql+pg8000"):
        raise ValueError(
            f"{url.drivername} is not supported; give sqlite:///FILE or postgresql://USER:PASSWORD@HOST:5432/NAME"
        )
    options, url = _connect_options(url.set(drivername="postgresql+pg8000"))
    engine = create_engine(url, pool_pre_ping=True, pool_size=4, pool_recycle=900, connect_args=options)
    if password is not None:

        @event.listens_for(engine, "do_connect")
        def _with_password(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
            parameters["password"] = password()

    return engine


def _sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        return create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    engine = create_engine(url, connect_args={"timeout": _TIMEOUT_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepared(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")

    return engine


def _connect_options(url: URL) -> tuple[dict[str, Any], URL]:
    """TLS as libpq's names ask for it: sslmode disable, require (encrypted) or verify-full (sslrootcert: the file with the CA)."""
    mode, root = url.query.get("sslmode", "disable"), url.query.get("sslrootcert")
    options: dict[str, Any] = {"timeout": _TIMEOUT_SECONDS}
    if mode == "require":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        options["ssl_context"] = context
    elif mode == "verify-full":
        options["ssl_context"] = ssl.create_default_context(cafile=None if root is None else str(root))
    elif mode != "disable":
        raise ValueError(f"sslmode is {mode!r}; it must be disable, require or verify-full")
    return options, url.difference_update_query(["sslmode", "sslrootcert"])
