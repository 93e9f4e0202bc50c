"""The contract of engines, run on DuckDB and on PostgreSQL: values, locks, limits, and silence about what failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import psycopg
import pytest
from insitu_node.engines.base import Engine, EngineLimits
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_node.engines.postgres import PostgresEngine
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import ConfigInvalid, ExecutionFailed, Unavailable

from tests.testkit.databases import new_database, new_duckdb

TOML = b"""
[dataset]
name = "care"
version = 1

[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
name = { type = "text" }

[tables.visit]
unit = "person_id"
[tables.visit.columns]
person_id = { type = "integer" }
day = { type = "date" }

[tables.chapter]
public = true
source = "chapter.csv"
key = ["code"]
[tables.chapter.columns]
code = { type = "text" }
label = { type = "text", nullable = true }
rank = { type = "integer", nullable = true }
weight = { type = "decimal", nullable = true }
since = { type = "date", nullable = true }
at = { type = "timestamp", nullable = true }
open = { type = "boolean", nullable = true }
"""
CHAPTER = (
    "code,unused,label,rank,weight,since,at,open\nA,x,\"it's, \\ 'é'\",1,0.5,2020-02-29,2020-01-01 10:00:00,true\n"
    "B,x,,,,,,\n"
).encode()
BUNDLE = DatasetBundle(toml=TOML, files={"chapter.csv": CHAPTER})
LIMITS = EngineLimits(statement_timeout_s=5, memory_limit_mb=512, workers=2, threads=2, temporary=None)
QUICK = EngineLimits(statement_timeout_s=0.3, memory_limit_mb=512, workers=2, threads=2, temporary=None)
MAPPING = {"person": "person", "visit": "SELECT person_id, day AS day FROM visit"}
SETUP = (
    "CREATE TABLE person (person_id BIGINT, name VARCHAR)",
    "INSERT INTO person VALUES (1, 'Ann'), (2, 'Bob'), (3, 'Cy')",
    "CREATE TABLE visit (person_id BIGINT, day DATE)",
    "INSERT INTO visit VALUES (1, '2020-01-01'), (1, '2020-01-02'), (2, '2021-01-01')",
)


def dataset() -> Dataset:
    return parse_dataset(BUNDLE)


class EngineContract:
    """Every engine passes these."""

    slow: str
    """A statement that runs for minutes."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        raise NotImplementedError

    @pytest.fixture
    def quick(self) -> Iterator[Engine]:
        raise NotImplementedError

    def test_reads_mapped_tables(self, engine: Engine) -> None:
        sql = f"SELECT p.name, COUNT(*) FROM {self.source(engine, 'person')} AS p"
        sql += f" JOIN {self.source(engine, 'visit')} AS v ON v.person_id = p.person_id GROUP BY p.name"
        assert sorted(engine.execute(sql)) == [("Ann", 2), ("Bob", 1)]

    def test_a_public_source_is_a_table_with_the_declared_types(self, engine: Engine) -> None:
        rows = engine.execute(f"SELECT * FROM {self.source(engine, 'chapter')} AS c ORDER BY code")
        assert rows == [
            ("A", "it's, \\ 'é'", 1, 0.5, date(2020, 2, 29), datetime(2020, 1, 1, 10), True),
            ("B", None, None, None, None, None, None),
        ]

    def test_values_come_back_as_plain_python(self, engine: Engine) -> None:
        (row,) = engine.execute(
            "SELECT CAST(1 AS BIGINT), CAST(2 AS SMALLINT), CAST('x' AS VARCHAR), TRUE, DATE '2020-02-29',"
            " TIMESTAMP '2020-02-29 01:02:03', CAST(1.5 AS DOUBLE PRECISION), CAST(2.50 AS DECIMAL(10, 2)),"
            " CAST(2.00 AS DECIMAL(10, 2)), NULL"
        )
        assert row == (1, 2, "x", True, date(2020, 2, 29), datetime(2020, 2, 29, 1, 2, 3), 1.5, 2.5, 2, None)
        kinds = [int, int, str, bool, date, datetime, float, float, int, type(None)]
        assert [type(value) for value in row] == kinds

    def test_sums_beyond_64_bits_are_exact_integers(self, engine: Engine) -> None:
        ((total, small),) = engine.execute(
            "SELECT SUM(x), SUM(CAST(1 AS BIGINT)) FROM (SELECT CAST(9223372036854775807 AS BIGINT) AS x"
            " UNION ALL SELECT CAST(9223372036854775807 AS BIGINT)) AS t"
        )
        assert (total, type(total)) == (2 * (2**63 - 1), int)
        assert (small, type(small)) == (2, int)

    def test_nan_and_infinities_are_null(self, engine: Engine) -> None:
        rows = engine.execute(
            "SELECT CAST('NaN' AS DOUBLE PRECISION), CAST('Infinity' AS DOUBLE PRECISION),"
            " CAST('-Infinity' AS DOUBLE PRECISION), CAST('NaN' AS REAL)"
        )
        assert rows == [(None, None, None, None)]

    def test_no_rows_is_an_empty_list(self, engine: Engine) -> None:
        assert engine.execute("SELECT 1.5 AS x, 2 AS y WHERE 1 = 0") == []

    def test_percent_signs_are_text(self, engine: Engine) -> None:
        assert engine.execute("SELECT '%s %d %' LIKE '%s%'") == [(True,)]

    def test_time_is_utc(self, engine: Engine) -> None:
        ((same,),) = engine.execute("SELECT CAST(TIMESTAMPTZ '2020-01-01 12:00:00+02' AS TIMESTAMP)")
        assert same == datetime(2020, 1, 1, 10)

    @pytest.mark.attacks("P4", "P6")
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO person VALUES (9, 'Eve')",
            "UPDATE person SET name = 'x'",
            "DELETE FROM person",
            "DROP TABLE person",
            "CREATE TABLE mine (x INTEGER)",
            "CREATE TEMPORARY TABLE mine (x INTEGER)",
            "SELECT 1; SELECT 2",
            "SELECT 1; DELETE FROM person",
            "COMMIT",
            "COMMIT; DELETE FROM person",
            "",
            "SELECT nothing FROM nowhere",
            "SELECT CAST(name AS BIGINT) FROM person",
        ],
    )
    def test_all_that_is_not_one_good_select_fails_with_one_constant_error(self, engine: Engine, sql: str) -> None:
        with pytest.raises(ExecutionFailed) as caught:
            engine.execute(sql.replace("FROM person", f"FROM {self.source(engine, 'person')} AS person"))
        error = caught.value
        assert error.line() == ExecutionFailed("INSITU-NODE-FAILED").line()
        assert error.__cause__ is None
        assert error.__suppress_context__
        assert engine.execute(f"SELECT COUNT(*) FROM {self.source(engine, 'person')} AS p") == [(3,)]

    @pytest.mark.attacks("P5")
    def test_what_failed_is_logged_without_its_values(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ExecutionFailed):
            engine.execute(f"SELECT CAST(name AS BIGINT) FROM {self.source(engine, 'person')} AS p")
        said = "".join(capsys.readouterr())
        assert "statement failed" in said
        assert not any(word in said for word in ("Ann", "Bob", "Cy", "SELECT", "name"))

    @pytest.mark.attacks("P6")
    def test_a_slow_statement_is_stopped(self, quick: Engine) -> None:
        started = time.monotonic()
        with pytest.raises(ExecutionFailed):
            quick.execute(self.slow)
        assert time.monotonic() - started < 5
        assert quick.execute("SELECT 1") == [(1,)]

    def test_a_session_sees_one_state(self, engine: Engine) -> None:
        with engine.session() as session:
            assert session.execute("SELECT 1") == [(1,)]
            with pytest.raises(ExecutionFailed):
                session.execute("SELECT nothing")
            with pytest.raises(ExecutionFailed):
                session.execute("SELECT 1")  # the transaction is broken: nothing more comes out of it

    def test_sessions_run_side_by_side(self, engine: Engine) -> None:
        found: list[object] = []

        def work() -> None:
            for _ in range(20):
                found.append(engine.execute(f"SELECT COUNT(*) FROM {self.source(engine, 'visit')} AS v"))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[(3,)]] * 80

    def test_closing_interrupts_and_then_refuses(self, engine: Engine) -> None:
        raised: list[Exception] = []

        connected = threading.Event()

        def work() -> None:
            try:
                with engine.session() as session:
                    connected.set()
                    session.execute(self.slow)
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert connected.wait(20)
        time.sleep(0.3)
        engine.close()
        thread.join(10)
        assert not thread.is_alive()
        assert [type(error) for error in raised] == [ExecutionFailed]
        with pytest.raises(Unavailable):
            engine.execute("SELECT 1")

    def test_describes_columns_and_what_they_can_serve_as(self, engine: Engine) -> None:
        columns = {column.name: column.serves for column in engine.describe("chapter")}
        assert columns == {
            "code": {"text"},
            "label": {"text"},
            "rank": {"integer", "decimal"},
            "weight": {"decimal"},
            "since": {"date", "timestamp"},
            "at": {"timestamp"},
            "open": {"boolean"},
        }
        assert [column.name for column in engine.describe("person")] == ["person_id", "name"]

    @staticmethod
    def source(engine: Engine, table: str) -> str:
        text = engine.tables[table]
        return f"({text})" if text.startswith("SELECT") else text


def duckdb_engine(database: Path | None, limits: EngineLimits, mapping: dict[str, str], base: Path) -> DuckDBEngine:
    return DuckDBEngine(
        dataset=dataset(), bundle=BUNDLE, database=database, schema=None, mapping=mapping, base=base, limits=limits
    )


class TestDuckDB(EngineContract):
    slow = "SELECT COUNT(*) FROM range(100000000) a(i), range(100000) b(j) WHERE (i * j) % 7 = 3"

    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        return new_duckdb(tmp_path / "site.duckdb", *SETUP)

    @pytest.fixture
    def engine(self, database: Path, tmp_path: Path) -> Iterator[Engine]:
        engine = duckdb_engine(database, LIMITS, MAPPING, tmp_path)
        yield engine
        engine.close()

    @pytest.fixture
    def quick(self, database: Path, tmp_path: Path) -> Iterator[Engine]:
        engine = duckdb_engine(database, QUICK, MAPPING, tmp_path)
        yield engine
        engine.close()

    @pytest.fixture
    def on_files(self, database: Path, tmp_path: Path) -> Iterator[Engine]:
        with_files = new_duckdb(
            tmp_path / "maker.duckdb",
            *SETUP,
            f"COPY person TO '{tmp_path}/person.parquet'",
            f"COPY visit TO '{tmp_path}/secret.csv'",
        )
        assert with_files.exists()
        (tmp_path / "visits").mkdir()
        new_duckdb(tmp_path / "maker2.duckdb", *SETUP, f"COPY visit TO '{tmp_path}/visits/2020.csv'")
        mapping = {"person": "SELECT * FROM read_parquet('person.parquet')", "visit": "SELECT * FROM 'visits/*.csv'"}
        engine = duckdb_engine(None, LIMITS, mapping, tmp_path)
        yield engine
        engine.close()

    @pytest.mark.parametrize("name", ["person.parquet", "'person.parquet'"])
    def test_a_table_may_be_a_file(self, on_files: Engine, tmp_path: Path, name: str) -> None:
        engine = duckdb_engine(None, LIMITS, {"person": name, "visit": "visits/2020.csv"}, tmp_path)
        for table in ("person", "visit"):
            counted = f"SELECT COUNT(*) FROM {self.source(engine, table)} AS t"
            assert engine.execute(counted) == on_files.execute(counted) == [(3,)]
        engine.close()

    @pytest.mark.attacks("P6")
    def test_reads_the_files_of_its_mapping_and_no_others(self, on_files: Engine, tmp_path: Path) -> None:
        assert on_files.execute(f"SELECT COUNT(*) FROM {self.source(on_files, 'person')} AS p") == [(3,)]
        assert on_files.execute(f"SELECT COUNT(*) FROM {self.source(on_files, 'visit')} AS v") == [(3,)]
        for path in ("/etc/passwd", f"{tmp_path}/secret.csv", "secret.csv", f"{tmp_path}/site.duckdb"):
            with pytest.raises(ExecutionFailed):
                on_files.execute(f"SELECT * FROM read_text('{path}')")

    @pytest.mark.attacks("P6")
    @pytest.mark.parametrize(
        "sql",
        [
            "ATTACH 'other.duckdb'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET threads = 1",
            "SET enable_external_access = true",
            "PRAGMA memory_limit = '1TB'",
            "COPY (SELECT 1) TO 'visits/out.csv'",
            "EXPORT DATABASE 'visits'",
            "SELECT * FROM glob('/etc/*')",
            "SELECT * FROM read_csv('https://example.org/x.csv')",
            "CALL pragma_version()",
            "EXPLAIN SELECT 1",
        ],
    )
    def test_is_locked_down(self, on_files: Engine, sql: str, tmp_path: Path) -> None:
        with pytest.raises(ExecutionFailed):
            on_files.execute(sql)
        assert not (tmp_path / "visits" / "out.csv").exists()

    def test_python_objects_are_out_of_reach(self, engine: Engine) -> None:
        import pyarrow as pa

        frame = pa.table({"x": [1]})
        with pytest.raises(ExecutionFailed):
            engine.execute("SELECT * FROM frame")
        assert frame.num_rows == 1

    def test_dates_beyond_python_are_null(self, engine: Engine) -> None:
        assert engine.execute("SELECT DATE '12000-01-01', DATE '0044-03-15 (BC)'") == [(None, None)]

    def test_memory_is_bounded(self, database: Path, tmp_path: Path) -> None:
        little = EngineLimits(statement_timeout_s=20, memory_limit_mb=64, workers=1, threads=1, temporary=None)
        engine = duckdb_engine(database, little, MAPPING, tmp_path)
        with pytest.raises(ExecutionFailed):
            engine.execute("SELECT COUNT(*) FROM (SELECT DISTINCT hash(i) AS h, i FROM range(50000000) t(i)) u")
        engine.close()

    def test_a_database_in_another_schema(self, tmp_path: Path) -> None:
        path = new_duckdb(tmp_path / "s.duckdb", "CREATE SCHEMA omop", "SET schema = 'omop'", *SETUP)
        engine = DuckDBEngine(
            dataset=dataset(), bundle=BUNDLE, database=path, schema="omop", mapping=MAPPING, base=tmp_path,
            limits=LIMITS,
        )  # fmt: skip
        assert engine.execute("SELECT COUNT(*) FROM visit") == [(3,)]
        engine.close()

    @pytest.mark.parametrize(
        ("mapping", "code"),
        [
            ({**MAPPING, "person": "no_such_table"}, "INSITU-CONFIG-DATABASE"),
            ({**MAPPING, "person": "SELECT FROM WHERE 'x"}, "INSITU-CONFIG-DATABASE"),
        ],
    )
    def test_a_mapping_that_does_not_fit(
        self, database: Path, tmp_path: Path, mapping: dict[str, str], code: str
    ) -> None:
        with pytest.raises(ConfigInvalid) as caught:
            duckdb_engine(database, LIMITS, mapping, tmp_path)
        assert caught.value.code == code

    def test_a_table_that_is_not_mapped_does_not_exist_here(self, database: Path, tmp_path: Path) -> None:
        engine = duckdb_engine(database, LIMITS, {"person": "person"}, tmp_path)
        assert "person" in engine.tables
        assert "visit" not in engine.tables
        engine.close()

    def test_a_database_file_that_is_missing_or_none(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigInvalid) as caught:
            duckdb_engine(tmp_path / "missing.duckdb", LIMITS, MAPPING, tmp_path)
        assert caught.value.code == "INSITU-CONFIG-FILE"
        (tmp_path / "text.duckdb").write_text("not a database" * 1000)
        with pytest.raises(ConfigInvalid) as caught:
            duckdb_engine(tmp_path / "text.duckdb", LIMITS, MAPPING, tmp_path)
        assert caught.value.code == "INSITU-CONFIG-DATABASE"


def postgres_engine(url: str, limits: EngineLimits, mapping: dict[str, str] = MAPPING) -> PostgresEngine:
    return PostgresEngine(dataset=dataset(), bundle=BUNDLE, database=url, schema=None, mapping=mapping, limits=limits)


def terminate(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'insitu-node' AND datname = current_database()"
        )


@pytest.fixture(scope="module")
def postgres_care(postgres_url: str) -> str:
    return new_database(postgres_url, *SETUP)


class TestPostgres(EngineContract):
    slow = "SELECT COUNT(*) FROM generate_series(1, 10000000) a, generate_series(1, 1000000) b WHERE (a * b) % 7 = 3"

    @pytest.fixture
    def database(self, postgres_care: str) -> str:
        return postgres_care

    @pytest.fixture
    def engine(self, database: str) -> Iterator[Engine]:
        engine = postgres_engine(database, LIMITS)
        yield engine
        engine.close()

    @pytest.fixture
    def quick(self, database: str) -> Iterator[Engine]:
        engine = postgres_engine(database, QUICK)
        yield engine
        engine.close()

    @pytest.mark.attacks("P6")
    @pytest.mark.parametrize(
        "sql",
        [
            "SET TRANSACTION READ WRITE",
            "SET default_transaction_read_only = off; DELETE FROM person",
            "COPY person TO '/tmp/out.csv'",
            "COPY person TO STDOUT",
            "CREATE EXTENSION dblink",
            "DO $$ BEGIN DELETE FROM person; END $$",
            "SELECT nextval('s')",
        ],
    )
    def test_is_locked_down(self, engine: Engine, database: str, sql: str) -> None:
        with engine.session() as session, pytest.raises(ExecutionFailed):  # noqa: PT012
            session.execute(sql)
            session.execute("DELETE FROM person")
        assert engine.execute("SELECT COUNT(*) FROM person") == [(3,)]

    def test_infinite_dates_and_numeric_nan_are_null(self, engine: Engine) -> None:
        rows = engine.execute(
            "SELECT DATE 'infinity', DATE '-infinity', TIMESTAMP 'infinity', DATE '0044-03-15 BC', DATE '12000-01-01',"
            " TIMESTAMP '12000-01-01', CAST('NaN' AS NUMERIC)"
        )
        assert rows == [(None,) * 7]

    def test_a_lost_connection_is_replaced_before_anything_is_reserved(self, engine: Engine, database: str) -> None:
        assert engine.execute("SELECT 1") == [(1,)]
        terminate(database)
        assert engine.execute("SELECT 1") == [(1,)]

    def test_a_connection_lost_in_a_session_is_a_failure(self, engine: Engine, database: str) -> None:
        with engine.session() as session:
            terminate(database)
            with pytest.raises(ExecutionFailed):
                session.execute("SELECT 1")
        assert engine.execute("SELECT 1") == [(1,)]

    def test_a_database_that_is_away_is_unavailable(self) -> None:
        engine = postgres_engine("postgresql://nobody@127.0.0.1:1/none", LIMITS)
        with pytest.raises(Unavailable) as caught, engine.session():
            pass
        assert caught.value.code == "INSITU-NODE-DATABASE"
        engine.close()

    def test_a_public_table_of_the_site_itself(self, postgres_url: str) -> None:
        url = new_database(postgres_url, *SETUP, "CREATE TABLE chapters (code TEXT, label TEXT)")
        engine = postgres_engine(url, LIMITS, {**MAPPING, "chapter": "chapters"})
        assert engine.tables["chapter"] == "chapters"
        assert [column.name for column in engine.describe("chapter")] == ["code", "label"]
        engine.close()

    def test_a_table_that_is_not_mapped_does_not_exist_here(self, database: str) -> None:
        engine = postgres_engine(database, LIMITS, {"person": "person"})
        assert "person" in engine.tables
        assert "visit" not in engine.tables
        engine.close()
