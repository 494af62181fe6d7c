"""Tell people what the loop decided: webhook, e-mail or command, and a dead man's switch.

Channels are environment variables, since they hold addresses and secrets of a site:

    ARL_ALERT_WEBHOOK    address that gets a POST with one JSON object per event
    ARL_ALERT_EMAIL      recipients, separated by commas; ARL_SMTP names host:port of the mail
    server
    ARL_ALERT_COMMAND    command that gets the JSON object on its standard input
    ARL_HEARTBEAT_URL    address that gets a GET after every poll that ended well; a monitor that
                         misses it raises the alarm (a dead man's switch)

An event is sent at least once: `<monitor>/alerted.json` holds the last entry of the log that every
channel has taken, and a channel that fails is tried again at the next poll.
"""

import json
import os
import shlex
import smtplib
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import urllib3

from arl.documents import Document, DocumentError
from arl.monitoring.journal import Journal, LogEntry

WEBHOOK, EMAIL, COMMAND = "ARL_ALERT_WEBHOOK", "ARL_ALERT_EMAIL", "ARL_ALERT_COMMAND"
SMTP, HEARTBEAT = "ARL_SMTP", "ARL_HEARTBEAT_URL"
_FILE = "alerted.json"
_SECONDS = 10.0  # for one delivery
_DECISIONS = {"refused", "held", "retrain"}
_EVENTS = {"failed", "outage", "stuck", "damaged", "outcome", "approved", "rejected", "rollback"}

Channel = Callable[[LogEntry], None]


@dataclass(frozen=True)
class Alerted(Document):
    """alerted.json: the last entry of the log that every channel has taken."""

    FORMAT: ClassVar[str] = "arl.alerted"
    VERSION: ClassVar[int] = 1

    sequence: int


def is_alert(entry: LogEntry) -> bool:
    """Whether a person wants to know of an entry."""
    if entry.decision is not None:
        return entry.decision.word in _DECISIONS
    return entry.event in _EVENTS


def send_alerts(journal: Journal, monitor: Path) -> list[str]:
    """Send every new event to every channel; return the failures as sentences.

    Without a channel, entries count as sent: a channel that is set up later tells of later events.
    """
    channels = _channels()
    entries = journal.entries()
    if not entries:
        return []
    file = monitor / _FILE
    try:
        sent = Alerted.read(file).sequence
    except (FileNotFoundError, DocumentError, UnicodeDecodeError):
        # A damaged state file sends everything again: twice is better than never.
        sent = 0 if channels else entries[-1].sequence
    for entry in entries:
        if entry.sequence <= sent or not is_alert(entry):
            continue
        failures = [text for channel in channels if (text := _try(channel, entry))]
        if failures:
            # Later events stay behind this one, so that none is lost.
            Alerted(entry.sequence - 1).write(file)
            return failures
    Alerted(entries[-1].sequence).write(file)
    return []


def send_heartbeat() -> str | None:
    """Tell the dead man's switch that the loop lives; the failure as a sentence."""
    address = os.environ.get(HEARTBEAT)
    if not address:
        return None
    try:
        _request("GET", address, None)
    except OSError as error:
        return str(error)
    return None


def _channels() -> list[Channel]:
    channels: list[Channel] = []
    if os.environ.get(WEBHOOK):
        channels.append(_post)
    if os.environ.get(EMAIL):
        channels.append(_mail)
    if os.environ.get(COMMAND):
        channels.append(_run)
    return channels


def _try(channel: Channel, entry: LogEntry) -> str:
    try:
        channel(entry)
    except (OSError, ValueError, subprocess.SubprocessError, smtplib.SMTPException) as error:
        return f"event {entry.sequence} ({entry.label}) was not sent: {error}"
    return ""


def _payload(entry: LogEntry) -> bytes:
    content = {"event": entry.label, "at": entry.at, "run": entry.run, "words": entry.words}
    return json.dumps({**content, "sequence": entry.sequence}, ensure_ascii=False).encode()


def _post(entry: LogEntry) -> None:
    _request("POST", os.environ[WEBHOOK], _payload(entry))


def _request(method: str, address: str, body: bytes | None) -> None:
    """Send a request; an error names the host alone, since an address may hold a secret."""
    # Addresses of chat webhooks are secrets in their path, and may hold a password before the @.
    host = urlsplit(address).netloc.rpartition("@")[2]
    try:
        response = urllib3.request(
            method,
            address,
            body=body,
            headers={"Content-Type": "application/json"},
            timeout=_SECONDS,
            retries=False,
        )
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionError(f"{host} cannot be reached ({type(error).__name__})") from None
    if response.status >= 300:
        raise ConnectionError(f"{host} answered {response.status}")


def _mail(entry: LogEntry) -> None:
    host, _, port = os.environ.get(SMTP, "localhost:25").partition(":")
    message = EmailMessage()
    recipients = [name.strip() for name in os.environ[EMAIL].split(",")]
    message["Subject"] = f"arl watch: {entry.label}"
    # The log's words name runs by an alias: a folder of the inbox may bear a patient's name.
    message["From"] = f"arl@{os.uname().nodename}"
    message["To"] = ", ".join(recipients)
    message.set_content("\n".join([*_lines(entry), ""]))
    with smtplib.SMTP(host, int(port or 25), timeout=_SECONDS) as server:
        server.send_message(message)


def _lines(entry: LogEntry) -> Sequence[str]:
    return [*entry.words, "", f"run {entry.run or 'none'}, log entry {entry.sequence}, {entry.at}"]


def _run(entry: LogEntry) -> None:
    subprocess.run(
        shlex.split(os.environ[COMMAND]), input=_payload(entry), check=True, timeout=_SECONDS
    )
