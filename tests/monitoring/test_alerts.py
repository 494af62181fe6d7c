"""Events reach a webhook, a mail server and a command; none is lost or sent twice."""

import http.server
import json
import socketserver
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from arl.monitoring import alerts
from arl.monitoring.alerts import send_alerts, send_heartbeat
from arl.monitoring.journal import BatchDecision, Journal
from arl.monitoring.metrics import mark_poll, serve_metrics, write_metrics


class Hook(http.server.ThreadingHTTPServer):
    """A web server that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, object]] = []
        self.gets = 0
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret-path"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hook

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.bodies.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.gets += 1
        self.send_response(200)
        self.end_headers()


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (alerts.WEBHOOK, alerts.EMAIL, alerts.COMMAND, alerts.HEARTBEAT, alerts.SMTP):
        monkeypatch.delenv(name, raising=False)


def fill(journal: Journal) -> None:
    journal.append("baseline", ["no alert"])
    journal.append("decision", ["no alert"], decision=BatchDecision(word="no-drift"), run="r1")
    journal.append("decision", ["It is held."], decision=BatchDecision(word="held"), run="r2")
    journal.append("stuck", ["It is stuck."], run="r3")


def test_a_webhook_gets_each_event_once(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(alerts.WEBHOOK, hook.url)
    journal = Journal(tmp_path)
    fill(journal)
    assert send_alerts(journal, tmp_path) == []
    assert send_alerts(journal, tmp_path) == []
    assert [body["event"] for body in hook.bodies] == ["held", "stuck"]
    assert (hook.bodies[0]["run"], hook.bodies[0]["words"]) == ("r2", ["It is held."])


def test_a_channel_that_fails_gets_the_event_at_the_next_poll(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(alerts.WEBHOOK, hook.url)
    journal = Journal(tmp_path)
    fill(journal)
    hook.status = 500
    [failure] = send_alerts(journal, tmp_path)
    assert "answered 500" in failure
    assert "secret-path" not in failure
    hook.status = 200
    (tmp_path / "alerted.json").write_text("damaged")
    assert send_alerts(journal, tmp_path) == []
    assert [body["event"] for body in hook.bodies] == ["held", "stuck"]


def test_a_new_channel_is_not_flooded_with_old_events(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    fill(journal)
    assert send_alerts(journal, tmp_path) == []
    monkeypatch.setenv(alerts.WEBHOOK, hook.url)
    journal.append("failed", ["It failed."], run="r4")
    assert send_alerts(journal, tmp_path) == []
    assert [body["event"] for body in hook.bodies] == ["failed"]


def test_a_command_gets_the_event_on_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "tell.py"
    script.write_text(
        f"import sys; open({str(tmp_path / 'out')!r}, 'a').write(sys.stdin.read() + '\\n')"
    )
    monkeypatch.setenv(alerts.COMMAND, f"{sys.executable} {script}")
    journal = Journal(tmp_path / "monitor")
    fill(journal)
    assert send_alerts(journal, tmp_path / "monitor") == []
    events = [json.loads(line)["event"] for line in (tmp_path / "out").read_text().splitlines()]
    assert events == ["held", "stuck"]
    monkeypatch.setenv(alerts.COMMAND, "false")
    journal.append("failed", ["It failed."])
    assert len(send_alerts(journal, tmp_path / "monitor")) == 1


class _Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        in_data, lines = False, []
        for raw in self.rfile:
            line = raw.decode().rstrip("\r\n")
            if in_data:
                lines.append(line)
                if line == ".":
                    in_data = False
                    self.server.mails.append("\n".join(lines))  # type: ignore[attr-defined]
                    self.wfile.write(b"250 ok\r\n")
            elif line.upper() == "DATA":
                in_data, lines = True, []
                self.wfile.write(b"354 go\r\n")
            elif line.upper() == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


def test_a_mail_server_gets_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp) as server:
        server.mails = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(alerts.EMAIL, "a@example.org, b@example.org")
        monkeypatch.setenv(alerts.SMTP, f"127.0.0.1:{server.server_address[1]}")
        journal = Journal(tmp_path)
        fill(journal)
        assert send_alerts(journal, tmp_path) == []
        mails = server.mails  # type: ignore[attr-defined]
        server.shutdown()
    assert len(mails) == 2
    assert "Subject: arl watch: held" in mails[0]
    assert "It is held." in mails[0]


def test_the_heartbeat(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send_heartbeat() is None
    monkeypatch.setenv(alerts.HEARTBEAT, hook.url)
    assert send_heartbeat() is None
    assert hook.gets == 1
    monkeypatch.setenv(alerts.HEARTBEAT, "http://127.0.0.1:9/secret-path")
    failure = send_heartbeat()
    assert failure is not None
    assert "secret-path" not in failure


def test_metrics_say_what_waits_for_a_person(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "monitor")
    fill(journal)
    mark_poll(tmp_path / "monitor")
    write_metrics(tmp_path / "monitor", tmp_path / "arl.prom")
    text = (tmp_path / "arl.prom").read_text()
    for line in (
        'arl_decisions_total{decision="held"} 1.0',
        "arl_runs_held 1.0",
        "arl_runs_stuck 1.0",
        "arl_log_problems 0.0",
        "arl_last_poll_timestamp_seconds",
    ):
        assert line in text


def test_metrics_are_served(tmp_path: Path) -> None:
    import socket

    fill(Journal(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve_metrics(tmp_path, port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert "arl_runs_stuck 1.0" in answer.read().decode()
