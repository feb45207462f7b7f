"""Dagster's records in PostgreSQL: the same loop, what is asked where nothing changed, what is said where it fails.

The store is made up, the instance and the server are real.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
import yaml

from apt_assets.engine.display import Display
from apt_assets.orchestration import postgres as records
from apt_assets.orchestration import run as loop
from apt_assets.orchestration.event_log import event_log
from apt_assets.orchestration.instance import Dagster
from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.settings.iterations import BASE
from tests import postgres as server
from tests.made_up import Bench, asked

pytestmark = pytest.mark.cluster


def written(port, database, **changes):
    """What a user writes into dagster.yaml; changes: of postgres_db."""
    db = {
        "username": server.USER,
        "password": server.PASSWORD,
        "hostname": "127.0.0.1",
        "port": port,
        "db_name": database,
        "scheme": "postgresql+psycopg2",
    }
    ours = yaml.safe_load((REPOSITORY / "dagster_home" / "dagster.yaml").read_text())
    return {**ours, "storage": {"postgres": {"postgres_db": {**db, **changes}}}}


def say(home, settings):
    (home / "dagster_home").mkdir(exist_ok=True)
    (home / "dagster_home" / "dagster.yaml").write_text(yaml.safe_dump(settings))


def opened_twice_at_once(home):
    with ThreadPoolExecutor(2) as pool:
        for instance in pool.map(dg.DagsterInstance.from_config, [str(home / "dagster_home")] * 2):
            yield instance.get_dynamic_partitions("iteration")
            instance.dispose()


@pytest.fixture(scope="module")
def tables(postgres, tmp_path_factory):
    """A database with Dagster's tables, which two then open at once. It is Dagster that makes them, and two who do so
    at once may find a type of the other's there: docs/guide/cluster.md has one do it first."""
    pytest.importorskip("dagster_postgres", reason="needs the extra cluster")
    home, database = tmp_path_factory.mktemp("first"), postgres.database()
    say(home, written(postgres.port, database))
    dg.DagsterInstance.from_config(str(home / "dagster_home")).dispose()
    assert list(opened_twice_at_once(home)) == [[], []]
    return database


@pytest.fixture
def settings(postgres, tables):
    """`written` of a database with empty tables."""
    database = postgres.database(like=tables)
    return lambda **changes: written(**{"port": postgres.port, "database": database, **changes})


@pytest.fixture
def home(states, tmp_path, monkeypatch):
    """A home at the end of its loop, without any records of Dagster's."""
    shutil.copytree(states["ended"], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "dagster_home")
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    monkeypatch.delenv("APT_EXPERIMENT", raising=False)
    return tmp_path


@pytest.fixture
def ended(home, settings):
    """The home with its records in PostgreSQL, opened."""
    say(home, settings())
    bench = Bench(home)
    yield bench
    bench.instance.dispose()


def latest(instance, name):
    key = dg.AssetKey(name)
    return set(
        instance.event_log_storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    )


def test_dagster_is_told_in_postgres_once_and_again_after_a_wipe(ended, home, monkeypatch):
    assert "loop.max_iterations" in ended.drive()
    assert latest(ended.instance, "policy") == {"0001", "0002"}
    assert not list((home / "dagster_home").rglob("*.db"))
    ended.drive()
    with monkeypatch.context() as patch:
        patch.setattr(type(ended.instance), "fetch_materializations", None)
        assert "loop.max_iterations" in ended.drive(), "the log is not read where nothing was written"
    ended.instance.wipe_assets([dg.AssetKey("policy")])
    assert latest(ended.instance, "policy") == set()
    ended.drive()
    assert latest(ended.instance, "policy") == {"0001", "0002"}


def test_driver_on_another_machine_sees_what_the_first_one_told(ended, settings, tmp_path_factory, monkeypatch):
    ended.drive()
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(ended.home, other, dirs_exist_ok=True, ignore=shutil.ignore_patterns("dagster_home"))
    say(other, settings())
    with monkeypatch.context() as patch:
        patch.setenv("APT_HOME", str(other))
        instance = Dagster(ended.project, Display()).instance
    assert latest(instance, "policy") == {"0001", "0002"}
    instance.dispose()


def test_loop_in_postgres_goes_on_with_new_data_one_iteration_at_a_time(ended):
    ended.drive()
    ended.land("b.jsonl", rows=(5, 9))
    assert ended.notice() == "opened iteration 0003 with b.jsonl"
    ended.compute(BASE, "0001", "0002")
    request = ended.drive()
    assert asked(request) == ("iterate", "0003")
    ended.start(request)
    assert "is going on" in ended.drive()
    assert ended.instance.event_log_storage.get_concurrency_info("apt_loop").slot_count == 1


def test_whatever_dagster_hears_is_noticed_without_opening_it(ended):
    ended.drive()
    for change in (
        lambda: ended.instance.wipe_assets([dg.AssetKey("bad_cases")]),
        lambda: ended.instance.delete_dynamic_partition("iteration", "0002"),
        lambda: ended.instance.add_dynamic_partitions("iteration", ["0007"]),
        lambda: ended.instance.report_runless_asset_event(dg.AssetObservation("policy", partition="0001")),
    ):
        loop.remember_settled(ended.project)
        assert loop.is_settled(ended.project)
        change()
        assert not loop.is_settled(ended.project)


def test_records_moved_from_sqlite_to_postgres_are_told_anew(home, settings):
    bench = Bench(home)
    bench.drive()
    loop.remember_settled(bench.project)
    assert loop.is_settled(bench.project)
    bench.instance.dispose()
    say(home, settings())
    assert list((home / "dagster_home").rglob("index.db")), "what was kept in SQLite is still there"
    assert not loop.is_settled(bench.project)
    moved = Bench(home)
    moved.drive()
    assert latest(moved.instance, "policy") == {"0001", "0002"}
    moved.instance.dispose()


def test_every_way_to_write_the_same_database_is_read_as_dagster_reads_it(ended, home, settings, postgres, monkeypatch):
    ended.drive()
    expected = event_log(ended.project)
    assert server.PASSWORD not in str(expected)
    monkeypatch.setenv("PG_PASSWORD", server.PASSWORD)
    monkeypatch.setenv("PG_PORT", str(postgres.port))
    say(home, settings(password={"env": "PG_PASSWORD"}, port={"env": "PG_PORT"}))
    assert event_log(ended.project) == expected
    database = settings()["storage"]["postgres"]["postgres_db"]["db_name"]
    monkeypatch.setenv("PG_URL", postgres.url(database).replace("postgresql:", "postgresql+psycopg2:"))
    say(home, {"storage": {"postgres": {"postgres_url": {"env": "PG_URL"}}}})
    assert event_log(ended.project) == expected
    # As Dagster's Helm chart writes it.
    config = settings()["storage"]["postgres"]
    kinds = {
        "run_storage": "PostgresRunStorage",
        "event_log_storage": "PostgresEventLogStorage",
        "schedule_storage": "PostgresScheduleStorage",
    }
    modules = {"event_log_storage": "dagster_postgres.event_log"}
    say(
        home,
        {
            key: {"module": modules.get(key, f"dagster_postgres.{key}"), "class": name, "config": config}
            for key, name in kinds.items()
        },
    )
    assert event_log(ended.project) == expected
    Dagster(ended.project, Display()).instance.dispose()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "wrong"}, "dagster.yaml: Dagster's history at .*password authentication failed"),
        ({"database": "nowhere"}, '/nowhere: .*database "nowhere" does not exist; see that PostgreSQL'),
        ({"port": 1}, "at 127.0.0.1:1/.*Connection refused.*; see that PostgreSQL runs there"),
        ({"scheme": "postgresql"}, r"write `scheme: postgresql\+psycopg2` under postgres_db"),
        ({"scheme": "postgres"}, r"postgres: SQLAlchemy has no driver for it here: write `scheme: postgresql"),
        ({"hostname": {"env": "NOT_SET_ANYWHERE"}}, "dagster.yaml: .*NOT_SET_ANYWHERE"),
    ],
)
def test_what_keeps_dagster_from_postgres_is_one_line_that_says_what_to_do(home, ended, settings, change, said, caplog):
    say(home, settings(**change))
    with pytest.raises(UsageError, match=said) as raised:
        Dagster(ended.project, Display())
    assert server.PASSWORD not in str(raised.value)
    assert not caplog.records, "nothing is tried again, with a warning each time"


def test_storage_without_the_extra_names_it(ended, monkeypatch):
    monkeypatch.setattr(records, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the extra cluster: `pip install 'apt-assets\[cluster\]'`"):
        Dagster(ended.project, Display())


def test_server_that_goes_away_is_named_and_the_loop_goes_on_when_it_is_back(home, settings):
    port = server.free_port()
    with server.made() as folder:
        with server.running(folder, port) as own:
            say(home, settings(port=port, database=own.database()))
            bench = Bench(home)
            dagster = Dagster(bench.project, Display())
            dagster.settle()
        with pytest.raises(UsageError, match=f"Dagster's history at 127.0.0.1:{port}/.*: .*; see that PostgreSQL runs"):
            dagster.settle()
        assert event_log(bench.project) is None
        with server.running(folder, port):
            dagster.settle()
            assert latest(dagster.instance, "policy") == {"0001", "0002"}
            for instance in (bench.instance, dagster.instance):
                instance.dispose()
