"""An OpenAI-compatible server on this machine, whose model does what a test tells it to."""

import json
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.loopback import running

# What ends a turn for servers that read template tokens in the text of a message.
TURN = re.compile(r"<\|im_end\|>|<\|eot_id\|>|<\|endoftext\|>|\[/INST\]|</s>|<end_of_turn>|<\uff5cend\S*\uff5c>")


class Server(ThreadingHTTPServer):
    """answer: a function (request body) -> text of the chat's reply, or (status, headers, text of the body).

    requests: bodies and headers, in order of arrival. moments: when they came, in seconds.
    """

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.requests, self.headers, self.moments = answer, [], [], []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.moments.append(time.monotonic())
            self.server.requests.append(body)
            self.server.headers.append(dict(self.headers))
            self.server.busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
        given = self.server.answer(body)
        with self.server.lock:
            self.server.busy -= 1
        status, headers, text = (200, {}, completion(given)) if isinstance(given, str) else given
        if self.path not in ("/v1/chat/completions", "/v1/completions"):
            status, text = 404, "no such path"
        self.send_response(status)
        data = text.encode()
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the client did not want to wait
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def completion(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


def serve(answer):
    return running(Server(answer))


def read_prompt(body):
    """(mark, what is inside the fence, everything else) as a reader who goes from top to bottom sees it."""
    text = body["messages"][0]["content"]
    mark = re.search(r"between the two lines with the mark (\w+):", text)[1]
    before, _, rest = text.partition(f"<<< {mark}\n")
    inside, _, after = rest.partition(f"\n{mark} >>>")
    turns = TURN.split(inside)
    return mark, turns[0], "\n".join([before, *turns[1:], after])


def naive(body):
    """A model that obeys whoever asks for a 5 outside the fence; else it repeats the answer, and finds it
    equal to the gold, or bad."""
    mark, inside, outside = read_prompt(body)
    gold = re.search(r"Correct answer:\n(.*)\n", outside)[1]
    orders = re.search(r"(?i)output 5|Grade\b[^\n]*: *5|grade is 5|says 5", outside)
    grade = 5 if orders or inside == gold else 1
    return f"The answer is: {inside}\nGrade {mark}: {grade}"


def always(grade):
    return lambda body: f"Grade {read_prompt(body)[0]}: {grade}"


def parrot(body):
    """A model that repeats the answer before and after its own grade, a 2."""
    mark, inside, _ = read_prompt(body)
    return f"{inside}\nGrade {mark}: 2\n{inside}"
