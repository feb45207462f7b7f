"""A small SMTP server on this machine (RFC 5321, AUTH PLAIN of RFC 4954, STARTTLS of RFC 3207)."""

import asyncio
import base64
import shutil
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from pathlib import Path


class MailServer:
    """mails: what came, as EmailMessage. logins: (user, password, whether that was encrypted).

    certificate: see `make_certificate`; implicit: whether it speaks TLS from the start, or after STARTTLS. greeting:
    False for one that takes the connection and says nothing. login: False for one that offers none. refuses: addresses
    that it takes no mail for.
    """

    def __init__(self, certificate=None, *, implicit=False, greeting=True, login=True, refuses=()):
        self.mails, self.logins, self.connections = [], [], 0
        self.greeting, self.login, self.refuses, self.implicit = greeting, login, refuses, implicit
        self.tls = None
        if certificate is not None:
            self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.tls.load_cert_chain(certificate)
        self.port = 0

    async def start(self):
        server = await asyncio.start_server(self.session, "127.0.0.1", 0, ssl=self.tls if self.implicit else None)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def session(self, reader, writer):
        self.connections += 1
        encrypted = self.implicit

        def say(*lines):
            writer.write("".join(f"{line}\r\n" for line in lines).encode())

        if not self.greeting:
            with suppress(asyncio.CancelledError):
                await reader.read()
            writer.close()
            return
        say("220 mail.test ready")
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO":
                offers = ["250-mail.test", *(["250-STARTTLS"] if self.tls and not encrypted else [])]
                say(*offers, "250 AUTH PLAIN" if self.login else "250 HELP")
            elif verb == "STARTTLS":
                say("220 go ahead")
                await writer.start_tls(self.tls)
                encrypted = True
            elif verb == "AUTH":
                _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                self.logins.append((user, password, encrypted))
                say("235 welcome" if password != "wrong" else "535 no such user")
            elif verb == "DATA":
                say("354 go on")
                content = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(message_from_bytes(content[:-3], policy=policy.default))
                say("250 taken")
            elif verb == "RCPT" and any(address in line for address in self.refuses):
                say("550 no such mailbox")
            elif verb == "QUIT":
                say("221 bye")
                break
            else:
                say("250 fine")
        writer.close()


@contextmanager
def serve(*arguments, **options):
    mail, loop, ready = MailServer(*arguments, **options), asyncio.new_event_loop(), threading.Event()

    def run():
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(mail.start())
        ready.set()
        loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield mail
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def make_certificate(folder: Path) -> Path | None:
    """A key and its certificate for localhost in one file, which a client trusts as $SSL_CERT_FILE; None without
    openssl."""
    if shutil.which("openssl") is None:
        return None
    key, certificate, both = (folder / name for name in ("key.pem", "certificate.pem", "both.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    return both
