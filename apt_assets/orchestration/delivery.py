"""How an alert leaves this machine: to a webhook, or by SMTP. Addresses with secrets are in the environment:

    APT_ALERT_WEBHOOK   the whole address of the webhook; of Slack's it is a secret itself
    APT_SMTP_URL        smtp://USER:PASSWORD@HOST:587 (STARTTLS where the server has it) or smtps://...:465

What is told of a failure never holds one of these. The loop of tries is not urllib3's `Retry`, which logs the address
at each try.
"""

import os
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from email.utils import formatdate
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from apt_assets.settings.around import Alerts
from resources.model import http

WEBHOOK, SMTP = "APT_ALERT_WEBHOOK", "APT_SMTP_URL"
TIMEOUT = 10.0  # seconds of one attempt
ATTEMPTS = 3
WAIT = 1.0  # seconds between two attempts
PATIENCE = 40.0  # seconds at most that the end of a run waits for alerts under way
SECRET = 16  # characters from which on a part of a webhook's path is one
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORTS = {"smtp": 587, "smtps": 465}


class NotSent(Exception):
    """An alert that was not sent; the message says why, without an address."""


@dataclass(frozen=True)
class Message:
    """event: as `alerts.on` names it. iteration: its key, or base. title: in a line. detail: scores or the reason.
    look: a command, or a page of Dagster's. at: in UTC."""

    event: str
    experiment: str
    iteration: str
    title: str
    detail: str
    look: str
    at: str


class Channel(Protocol):
    @property
    def name(self) -> str: ...

    def deliver(self, message: Message) -> None:
        """Raises NotSent."""
        ...


@dataclass(frozen=True)
class Webhook:
    """kind: slack, or json for all fields of a Message."""

    url: str
    kind: str
    name: str = "webhook"

    def deliver(self, message: Message) -> None:
        body = {"text": in_slack(message)} if self.kind == "slack" else asdict(message)
        try:
            with http.Client(self.url, None, TIMEOUT, 1, ATTEMPTS) as client:
                client.persist(lambda attempt: client.send("POST", "", body))
        except http.Refused as refused:
            raise NotSent(f"status {refused.status}") from None
        except http.Failure as failure:
            raise NotSent(str(failure).partition(":")[0]) from None  # what follows quotes the address


def in_slack(message: Message) -> str:
    """As Slack's mrkdwn, in which a text must not be able to name a channel or a link."""
    title, detail, look = (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        for text in (message.title, message.detail, message.look)
    )
    return f"*{title}*\n{detail}\nLook: {look}"


@dataclass(frozen=True)
class Mail:
    """By the server of `url`, to these addresses."""

    url: str
    addresses: Sequence[str]
    name: str = "e-mail"

    def deliver(self, message: Message) -> None:
        server = urlsplit(self.url)
        mail = self.written(message, unquote(server.username or ""))
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                refused = send(server, mail)
            except (OSError, smtplib.SMTPException) as error:
                if left == 0 or not may_pass(error):
                    raise NotSent(reason_of(error)) from None
                time.sleep(WAIT)
            else:
                if refused:
                    raise NotSent(f"the server refused {', '.join(sorted(refused))}")
                return

    def written(self, message: Message, user: str) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = user if "@" in user else self.addresses[0]
        mail["To"] = ", ".join(self.addresses)
        mail["Subject"] = f"apt-assets: {message.title}"
        mail["Date"] = formatdate()
        mail.set_content(f"{message.title}\n\n{message.detail}\n\nLook: {message.look}\n")
        return mail


def send(server: SplitResult, mail: EmailMessage) -> Iterable[str]:
    """Addresses that were refused, of those that were not all. Raises OSError or SMTPException."""
    context, (host, port) = ssl.create_default_context(), place_of(server)
    with (
        smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=context)
        if server.scheme == "smtps"
        else smtplib.SMTP(host, port, timeout=TIMEOUT)
    ) as session:
        session.ehlo()
        if server.scheme == "smtp" and session.has_extn("starttls"):
            session.starttls(context=context)
        elif server.scheme == "smtp" and server.password and host not in LOOPBACK:
            raise smtplib.SMTPNotSupportedError(
                "the server offers no STARTTLS, and the password is not sent in the clear"
            )
        if server.username and server.password:
            session.login(unquote(server.username), unquote(server.password))
        return session.send_message(mail)


def place_of(server: SplitResult) -> tuple[str, int]:
    return server.hostname or "", server.port or PORTS[server.scheme]


def may_pass(error: Exception) -> bool:
    """Whether another attempt may do better."""
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code < 500
    return not isinstance(error, smtplib.SMTPNotSupportedError | smtplib.SMTPRecipientsRefused | ssl.SSLError)


def reason_of(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server answers {error.smtp_code}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return str(error)  # ours, or smtplib's on logging in and on addresses: none names a user
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "the server refused all addresses"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "no answer, or closed by the server, as on a wrong password"
    return type(error).__name__


def channels(settings: Alerts) -> tuple[list[Channel], list[str]]:
    """(how alerts go out, a line for each way that the settings name and the environment has no address for)."""
    found: list[Channel] = []
    lacking = []
    if settings.webhook is not None:
        url = os.environ.get(WEBHOOK, "").strip()
        if urlsplit(url).scheme in ("http", "https"):
            found.append(Webhook(url, settings.webhook))
        else:
            lacking.append(f"alerts.webhook: {settings.webhook}: set ${WEBHOOK} to its address; none is sent there")
    if settings.email:
        url = os.environ.get(SMTP, "").strip()
        if is_server(url):
            found.append(Mail(url, settings.email))
        else:
            lacking.append(f"alerts.email: set ${SMTP} to smtp://USER:PASSWORD@HOST:587; none is sent there")
    return found, lacking


def is_server(url: str) -> bool:
    try:
        server = urlsplit(url)
        return server.scheme in PORTS and bool(server.hostname) and server.port != 0
    except ValueError:  # a port that is no number
        return False


def without_secrets(text: str, others: Iterable[str] = ()) -> str:
    """A text without what is secret of the two addresses, users and passwords in any address, and the values of
    `others`, which are names of variables."""
    webhook, password = urlsplit(os.environ.get(WEBHOOK, "")), urlsplit(os.environ.get(SMTP, "")).password
    parts = [part for part in webhook.path.split("/") if len(part) >= SECRET]
    secrets = [*parts, webhook.query, unquote(password or ""), *(os.environ.get(name, "") for name in others)]
    for secret in secrets:
        text = http.without_key(text, secret.strip())
    return re.sub(r"//[^/@\s]+@", "//***@", text)


class Outbox:
    """Sends in the background, so that no server delays a run. tell: takes a line for each alert that was not sent."""

    def __init__(self, ways: Sequence[Channel], tell: Callable[[str], None]):
        self._ways, self._tell = ways, tell
        self._under_way: list[tuple[threading.Thread, str]] = []
        self._failed: list[str] = []

    def send(self, message: Message) -> None:
        for way in self._ways:
            # One that is still waiting must not keep this process from its end.
            thread = threading.Thread(target=self._deliver, args=(way, message), daemon=True)
            thread.start()
            self._under_way.append((thread, f"{way.name}: {message.event}"))

    def _deliver(self, way: Channel, message: Message) -> None:
        try:
            way.deliver(message)
        except NotSent as error:
            self._failed.append(f"an alert was not sent, {way.name}: {message.event}: {error}")
        except Exception as error:  # whatever a server or a library does: no run fails by it, and no traceback tells
            self._failed.append(f"an alert was not sent, {way.name}: {message.event}: {type(error).__name__}")

    def close(self) -> None:
        """Wait until all are sent or given up, PATIENCE at most."""
        until = time.monotonic() + PATIENCE
        for thread, what in self._under_way:
            thread.join(max(until - time.monotonic(), 0.0))
            if thread.is_alive():
                self._failed.append(f"an alert was not sent, {what}: no answer after {PATIENCE:.0f} s")
        for line in self._failed:
            self._tell(line)
