"""Alerts: what is told by webhook and mail, once each, to servers of this machine; and that no secret goes along."""

import json
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus, SensorEvaluationContext
from dagster._core.remote_origin import RegisteredCodeLocationOrigin

from apt_assets.engine.display import Display
from apt_assets.engine.execute import run_stage
from apt_assets.engine.stage import STAGES
from apt_assets.loop.next_run import End
from apt_assets.method import gate
from apt_assets.method.corrections import taken_on
from apt_assets.orchestration import delivery
from apt_assets.orchestration.alerts import Alerts
from apt_assets.orchestration.definitions import build_definitions
from apt_assets.orchestration.delivery import Mail, Message, NotSent, Outbox, Webhook
from apt_assets.orchestration.instance import Dagster
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.reader import load_experiment
from resources.model import http
from tests import mail_server, tiny
from tests.loopback import running

PATH = "/services/T0001/B0001/a-token-that-is-secret"
SECRETS = ("a-token-that-is-secret", "pass@word", "pass%40word")
OTHER_GATE = {**tiny.OPEN_GATE, "resamples": 200}  # decided anew, and passed


class Hook(ThreadingHTTPServer):
    """bodies: what was posted. answers: a status for each request; the last one for all that follow."""

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.paths, self.answers = [], [], list(answers or [200])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}{PATH}"

    @property
    def events(self):
        return [body["event"] for body in self.bodies]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.paths.append(self.path)
        answers = self.server.answers
        self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass


def hooked(*answers):
    return running(Hook(*answers))


@pytest.fixture
def hook(monkeypatch):
    with hooked() as server:
        monkeypatch.setenv("APT_ALERT_WEBHOOK", server.url)
        yield server


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch):
    monkeypatch.delenv("APT_ALERT_WEBHOOK", raising=False)
    monkeypatch.delenv("APT_SMTP_URL", raising=False)
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(delivery, "WAIT", 0.01)


class Told(Display):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


MESSAGE = Message(
    "promoted", "tickets", "0002", "tickets: iteration 0002 is promoted", "<!channel> & up", "look", "now"
)


# -- what is told ---------------------------------------------------------------------------------------


def test_promoted_adapter_and_the_loops_end_are_told_once_each_by_both_ways_and_hold_no_secret(
    ran, hook, monkeypatch, tmp_path
):
    alerts = {"webhook": "json", "email": ["me@example.org", "you@example.org"]}
    path = ran(1, gate=OTHER_GATE, alerts=alerts)
    with mail_server.serve() as mail:
        monkeypatch.setenv("APT_SMTP_URL", f"smtp://robot%40example.org:pass%40word@127.0.0.1:{mail.port}")
        told = Told()
        project = Project.open(path)
        project.forced.add(("0001", "promoted_adapter"))
        assert run_loop(project, 1, told).passed
        assert run_loop(Project.open(path), 1, told).passed, "which finds all as it was"
    assert sorted(hook.events) == ["ended", "promoted"]
    (promoted,) = (body for body in hook.bodies if body["event"] == "promoted")
    assert promoted["title"] == "tiny: iteration 0001 is promoted"
    assert promoted["detail"] == project.planner().verdict("0001")["reason"]
    assert promoted["look"] == f"apt-assets status --experiment {path}"
    assert mail.logins[0] == ("robot@example.org", "pass@word", False)
    (sent,) = (one for one in mail.mails if "promoted" in one["Subject"])
    assert (sent["From"], sent["To"]) == ("robot@example.org", "me@example.org, you@example.org")
    assert promoted["detail"] in sent.get_content()
    said = [*told.lines, json.dumps(hook.bodies), *(one.as_string() for one in mail.mails)]
    kept = [file.read_bytes().decode(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(kept) > 20
    assert [secret for secret in SECRETS if any(secret in text for text in [*said, *kept])] == []


def test_refused_adapter_is_told_with_its_scores_and_is_not_told_again_as_the_loops_end(ran, hook, monkeypatch):
    decide = gate.decide

    def refuses(*arguments, **options):
        checks = decide(*arguments, **options)["checks"]
        checks[0]["passed"] = False
        return {"passed": False, "reason": gate.Check(**checks[0]).sentence(), "checks": checks}

    monkeypatch.setattr(gate, "decide", refuses)
    project = Project.open(ran(1, gate=OTHER_GATE, alerts={"webhook": "slack"}))
    assert not run_loop(project, 1, Told()).passed
    (body,) = hook.bodies
    title, detail, look = body["text"].splitlines()
    assert title == "*tiny: iteration 0001 is refused*"
    assert detail.startswith("domain refused: 0.0% against 0.0% of the base model")
    assert look.startswith("Look: apt-assets show gate 0001 --experiment ")
    assert hook.paths == [PATH]


def test_failed_stage_is_told_with_its_reason_and_without_what_is_secret_in_it(ran, hook, monkeypatch):
    monkeypatch.setenv("APT_SERVER_KEY", "sk-of-the-server")

    def fails(step):
        raise RuntimeError(f"sk-of-the-server at postgresql://me:{SECRETS[1]}@host, told to {hook.url}")

    monkeypatch.setitem(STAGES, "bad_cases", replace(STAGES["bad_cases"], compute=fails))
    project = Project.open(ran(1, alerts={"webhook": "json"}))
    project.forced.add(("0001", "bad_cases"))
    assert not run_loop(project, 1, Told()).passed
    (body,) = hook.bodies
    assert (body["event"], body["iteration"]) == ("failed", "0001")
    assert body["detail"].startswith("bad_cases: ")
    assert body["look"].startswith("/runs/")
    assert not [secret for secret in (*SECRETS, "sk-of-the") if secret in body["detail"]]


def test_run_that_cannot_begin_is_told_as_failed(make_experiment, tmp_path, hook):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(40))
    path = make_experiment(alerts={"webhook": "json"}, retrieval={"encoder": str(tmp_path / "nowhere")})
    with pytest.raises(Exception, match="nowhere"):
        run_loop(Project.open(path), 1, Told())
    (body,) = hook.bodies
    assert body["event"] == "failed"
    assert "nowhere" in body["detail"]


def test_new_rows_in_quarantine_are_told_with_their_number(make_experiment, tmp_path, hook):
    rows = [*tiny.domain_rows(40), {"prompt": "no answer"}, {"answer": "no question"}]
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", rows)
    project = Project.open(make_experiment(alerts={"webhook": "json"}))
    project.open_iteration("0001")
    run_stage(project, "0001", "domain_dataset", run_id="r")
    for _ in range(2):
        with Alerts(project, print) as alerts:
            alerts.of_run("0001", "r", None)
    (body,) = hook.bodies
    assert (body["event"], body["detail"][:7]) == ("quarantined", "2 rows ")
    assert body["look"].startswith("apt-assets show quarantine 0001")


def test_what_people_left_out_and_decisions_that_do_not_apply_are_no_bad_rows_of_new_files(
    make_experiment, tmp_path, hook
):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", [*tiny.domain_rows(40), {"prompt": "no answer"}])
    asked, gold = (tiny.domain_rows(40)[0][name] for name in ("prompt", "answer"))
    line = {"decision": "leave_out", "by": "Ann", "at": "2026-11-29T12:00:00Z"}
    decisions = [
        {**line, "prompt": asked, "row": taken_on(asked, gold, None)},
        {**line, "prompt": "Gone?", "row": taken_on("Gone?", "red", None)},
    ]
    tiny.write_jsonl(tmp_path / "landing" / "corrections-20261129T120000Z.jsonl", decisions)
    project = Project.open(make_experiment(alerts={"webhook": "json"}))
    project.open_iteration("0001")
    run_stage(project, "0001", "domain_dataset", run_id="r")
    with Alerts(project, print) as alerts:
        alerts.of_run("0001", "r", None)
    (body,) = hook.bodies
    assert body["detail"][:7] == "1 rows "


def test_only_events_that_are_chosen_are_told(ended, hook):
    ended.set(alerts={"webhook": "json", "on": ["promoted", "failed"]})
    assert "loop.max_iterations" in ended.drive()
    assert hook.events == []


def test_way_without_an_address_is_a_line_at_the_beginning_and_the_run_goes_on(ran):
    told = Told()
    project = Project.open(ran(1, alerts={"webhook": "slack", "email": ["me@example.org"]}))
    assert run_loop(project, 1, told).passed
    assert [line.partition(":")[0] for line in told.lines] == ["alerts.webhook", "alerts.email"]


def test_bare_key_on_in_yaml_is_the_setting(tmp_path):
    (tmp_path / "e.yaml").write_text("name: e\nalerts: {webhook: json, on: [failed]}\n")
    assert load_experiment(tmp_path / "e.yaml").alerts.on == ["failed"]


# -- runs that were started in Dagster ------------------------------------------------------------------


def test_run_started_in_dagster_is_told_by_a_sensor_and_one_of_the_command_is_not_told_twice(ran, hook):
    path = ran(1, gate=OTHER_GATE, alerts={"webhook": "json", "on": ["promoted", "refused", "failed"]})
    project = Project.open(path)
    instance = Dagster(project, Display()).instance
    repository = build_definitions(project).get_repository_def()
    cursors = dict.fromkeys(("alert_of_success", "alert_of_failure"))

    def tick():
        for name in cursors:
            context = SensorEvaluationContext(
                None, cursor=cursors[name], repository_name="__repository__", repository_def=repository,
                instance=instance, sensor_name=name, code_location_origin=RegisteredCodeLocationOrigin("apt"),
            )  # fmt: skip
            cursors[name] = repository.get_sensor_def(name).evaluate_tick(context).cursor

    def by_daemon(run_id, ends, status):
        """A run of the daemon in the history, as tests.made_up starts one."""
        from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin

        origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("apt"), "__repository__")
        run = dg.DagsterRun(
            job_name="iterate", run_id=run_id, status=DagsterRunStatus.STARTED, tags={"dagster/partition": "0001"},
            remote_job_origin=RemoteJobOrigin(origin, "iterate"),
        )  # fmt: skip
        instance.add_run(run)
        if status == DagsterRunStatus.FAILURE:
            instance.report_run_failed(run, "its process is gone")
        else:
            instance.report_dagster_event(DagsterEvent(ends.value, job_name="iterate"), run_id)

    tick()
    project.forced.add(("0001", "promoted_adapter"))
    assert run_loop(project, 1, Display()).passed
    tick()
    assert hook.events == ["promoted"]

    run_id = "11111111-1111-4111-8111-111111111111"
    project.forced.add(("0001", "promoted_adapter"))
    run_stage(project, "0001", "promoted_adapter", run_id=run_id)
    by_daemon(run_id, DagsterEventType.PIPELINE_SUCCESS, DagsterRunStatus.SUCCESS)
    tick()
    tick()
    assert hook.events == ["promoted", "promoted"]

    by_daemon("22222222-2222-4222-8222-222222222222", DagsterEventType.PIPELINE_FAILURE, DagsterRunStatus.FAILURE)
    tick()
    assert hook.events == ["promoted", "promoted", "failed"]
    assert hook.bodies[-1]["detail"] == "its process is gone"
    instance.dispose()


def test_loops_end_that_the_daemon_finds_is_told_at_its_first_look_only(ended, hook):
    ended.set(alerts={"webhook": "json"})
    assert "loop.max_iterations" in ended.drive()
    assert "loop.max_iterations" in ended.drive()
    assert hook.events == ["ended"]
    assert "loop.max_iterations" in hook.bodies[0]["detail"]


def test_without_alerts_dagster_has_no_sensor_of_them(ended):
    names = {sensor.name for sensor in build_definitions(ended.project).sensors}
    assert names == {"landing", "loop_driver", "lost_runs"}


# -- servers --------------------------------------------------------------------------------------------


def test_slack_cannot_be_made_to_call_a_channel_by_what_a_message_says():
    with hooked() as server:
        Webhook(server.url, "slack").deliver(MESSAGE)
    assert "&lt;!channel&gt; &amp; up" in server.bodies[0]["text"]


@pytest.mark.parametrize(
    ("answers", "tries", "reason"),
    [((503, 503, 200), 3, None), ((503,), 3, "status 503"), ((404,), 1, "status 404"), ((302,), 1, "status 302")],
)
def test_webhook_that_may_pass_is_tried_three_times(answers, tries, reason):
    with hooked(*answers) as server:
        if reason is None:
            Webhook(server.url, "json").deliver(MESSAGE)
        else:
            with pytest.raises(NotSent, match=f"^{reason}$"):
                Webhook(server.url, "json").deliver(MESSAGE)
    assert len(server.bodies) == tries


@pytest.mark.parametrize("implicit", [True, False])
def test_mail_goes_encrypted_where_the_server_can_and_the_password_after_that(implicit, tmp_path, monkeypatch):
    certificate = mail_server.make_certificate(tmp_path)
    if certificate is None:
        pytest.skip("openssl makes the server's certificate: install it")
    scheme = "smtps" if implicit else "smtp"
    with mail_server.serve(certificate, implicit=implicit) as mail:
        url = f"{scheme}://me:secret@localhost:{mail.port}"
        with pytest.raises(NotSent, match="SSLCertVerificationError"):
            Mail(url, ["you@example.org"]).deliver(MESSAGE)  # nobody vouches for it yet
        assert mail.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        Mail(url, ["you@example.org"]).deliver(MESSAGE)
    assert mail.logins == [("me", "secret", True)]
    assert [one["To"] for one in mail.mails] == ["you@example.org"]


def test_password_is_not_sent_in_the_clear_to_another_machine(monkeypatch):
    monkeypatch.setattr(delivery, "LOOPBACK", ())
    with mail_server.serve() as mail, pytest.raises(NotSent, match="offers no STARTTLS"):
        Mail(f"smtp://me:secret@127.0.0.1:{mail.port}", ["you@example.org"]).deliver(MESSAGE)
    assert (mail.logins, mail.mails) == ([], [])


def test_server_that_offers_no_login_or_takes_no_such_address_is_told_as_that():
    with mail_server.serve(login=False) as mail:
        with pytest.raises(NotSent, match="AUTH extension not supported"):
            Mail(f"smtp://me:secret@127.0.0.1:{mail.port}", ["you@example.org"]).deliver(MESSAGE)
        with pytest.raises(NotSent, match="SMTPUTF8"):
            Mail(f"smtp://127.0.0.1:{mail.port}", ["jörg@example.org"]).deliver(MESSAGE)
    assert mail.connections == 2, "another attempt would do no better"


def test_wrong_password_ends_at_once_and_refused_addresses_are_named():
    with mail_server.serve(refuses=["you@example.org"]) as mail:
        with pytest.raises(NotSent, match=r"^the server answers 535$"):
            Mail(f"smtp://me:wrong@127.0.0.1:{mail.port}", ["you@example.org"]).deliver(MESSAGE)
        assert mail.connections == 1
        with pytest.raises(NotSent, match=r"refused you@example\.org"):
            Mail(f"smtp://127.0.0.1:{mail.port}", ["me@example.org", "you@example.org"]).deliver(MESSAGE)
    assert len(mail.mails) == 1, "the others have it"


def test_server_that_is_not_there_or_says_nothing_is_one_line_and_fails_nothing(ended, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    monkeypatch.setattr(delivery, "TIMEOUT", 0.1)
    ended.set(alerts={"webhook": "slack", "email": ["me@example.org"]})
    lines = []
    with mail_server.serve(greeting=False) as silent:
        monkeypatch.setenv("APT_ALERT_WEBHOOK", f"http://127.0.0.1:{closed}{PATH}")
        monkeypatch.setenv("APT_SMTP_URL", f"smtp://127.0.0.1:{silent.port}")
        with Alerts(ended.project, lines.append) as alerts:
            alerts.ended(End("it is at its end", passed=True))
        assert silent.connections == 3
    assert sorted(lines) == [
        "an alert was not sent, e-mail: ended: no answer, or closed by the server, as on a wrong password",
        "an alert was not sent, webhook: ended: ConnectionError",
    ]


def test_end_of_a_run_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(delivery, "PATIENCE", 0.05)
    released, lines = threading.Event(), []

    class Slow:
        name = "slow"

        def deliver(self, message):
            released.wait(10)

    outbox = Outbox([Slow()], lines.append)
    outbox.send(MESSAGE)
    outbox.close()
    released.set()
    assert lines == ["an alert was not sent, slow: promoted: no answer after 0 s"]


@pytest.mark.parametrize("address", ["nobody", "two@example.org, more@example.org", "a@b\nBcc: c@d"])
def test_what_is_no_single_address_is_refused(address):
    with pytest.raises(ValueError, match=r"alerts\.email"):
        Experiment(name="e", alerts={"email": [address]})


def test_full_disk_is_told_though_it_cannot_be_noted(ended, hook, monkeypatch):
    ended.set(alerts={"webhook": "json"})

    def full(*arguments, **fields):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(ended.project.store), "journal", full)
    with pytest.raises(OSError, match="No space"), Alerts(ended.project, print):
        full()
    (body,) = hook.bodies
    assert (body["event"], body["title"]) == ("failed", "made-up: the run failed")
    assert "No space left on device" in body["detail"]
