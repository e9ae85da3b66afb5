"""Webhooks delivered to real receivers on this machine, from records that ended in a real Redis."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis import Redis
from samples import METRICS, REQUEST
from standardwebhooks import Webhook as Signer

from ripple_core.contract import links
from ripple_core.contract.job import JobError, JobRecord, JobStatus, Webhook, new_job_id, utc_now
from ripple_core.contract.settings import SharedSettings
from ripple_core.contract.store import JobStore
from ripple_core.contract.webhooks import check_webhook_url, webhook_secret
from worker.webhooks import LEASE_SECONDS, RETRY_SECONDS, WebhookDeliverer, signed_video_link, start_deliverers

LOCAL = ("127.0.0.1",)


class Receiver(ThreadingHTTPServer):
    """Keeps what it gets and answers from a list, then 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.on_request: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    @property
    def message_ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.received]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that is gone, or that did not like the certificate, is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.on_request()
        status, headers = self.server.answers.pop(0) if self.server.answers else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def serving(receiver: Receiver) -> Iterator[Receiver]:
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


def deliverer(store: JobStore, allow: tuple[str, ...] = LOCAL, **options: Any) -> WebhookDeliverer:
    settings = SharedSettings(webhook_allow=allow, public_url=options.pop("public_url", None))
    return WebhookDeliverer(store, settings, lambda record: f"/jobs/{record.id}/video?token=t", **options)


def ended(store: JobStore, url: str, status: JobStatus = JobStatus.SUCCEEDED, owner: str | None = None) -> str:
    """A job with a webhook that has come to its end."""
    record = JobRecord(
        id=new_job_id(), created_at=utc_now(), request=REQUEST, owner=owner, webhook=Webhook(url=url), batch=["a", "b"]
    )
    pipeline = store.redis.pipeline()
    store.add(record, pipeline)
    pipeline.execute()
    assert store.claim(record.id, "e", "w")
    if status == JobStatus.SUCCEEDED:
        assert store.succeed(record.id, "w/e", METRICS, 4)
    elif status == JobStatus.FAILED:
        assert store.fail(record.id, "w/e", JobError(code="out_of_memory", message="too big"))
    else:
        assert store.finish_cancel(record.id, "w/e")
    return record.id


def webhook_of(store: JobStore, job_id: str) -> Webhook:
    webhook = store.get(job_id).webhook
    assert webhook is not None
    return webhook


def only_error(store: JobStore, job_id: str) -> str:
    (delivery,) = webhook_of(store, job_id).deliveries
    assert delivery.status_code is None
    assert delivery.error is not None
    return delivery.error


def outbox(store: JobStore) -> list[bytes]:
    return list(store.redis.zrange("ripple:webhooks", 0, -1))


def resolver(*addresses: str) -> Any:
    return lambda _host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in addresses]


class TestMessage:
    """What arrives."""

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(JobStatus.SUCCEEDED, "completed"), (JobStatus.FAILED, "failed"), (JobStatus.CANCELLED, "cancelled")],
    )
    def test_the_signature_verifies_and_the_body_tells_the_end(
        self, store: JobStore, receiver: Receiver, status: JobStatus, kind: str
    ) -> None:
        job_id = ended(store, receiver.url, status, owner="key_1")
        assert deliverer(store).deliver_due(time.time())
        ((headers, body),) = receiver.received
        payload = Signer(webhook_secret(store.redis, "key_1")).verify(body, headers)
        record = store.get(job_id)
        assert payload["type"] == f"video.{kind}"
        assert datetime.fromisoformat(payload["timestamp"]) == record.finished_at
        data = payload["data"]
        assert (data["id"], data["status"], data["batch"]) == (job_id, status, ["a", "b"])
        assert data["error"] == (record.error.model_dump() if record.error else None)
        succeeded = status == JobStatus.SUCCEEDED
        metrics = {"latency_s": METRICS.latency_s.model_dump(), "savings": 0.25}
        assert data["metrics"] == (metrics if succeeded else None)
        video = f"/jobs/{job_id}/video?token=t" if succeeded else None
        assert data["links"] == {"job": f"/jobs/{job_id}", "video": video}
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"].startswith("TimeRipple/")

    def test_the_outcome_is_in_the_record(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        assert webhook_of(store, job_id).state == "waiting"
        now = time.time()
        assert deliverer(store).deliver_due(now)
        webhook = webhook_of(store, job_id)
        assert (webhook.state, webhook.next_attempt_at) == ("delivered", None)
        (delivery,) = webhook.deliveries
        assert (delivery.status_code, delivery.error) == (200, None)
        assert abs(delivery.at.timestamp() - now) < 1e-3
        assert outbox(store) == []

    def test_another_owners_secret_does_not_verify(self, store: JobStore, receiver: Receiver) -> None:
        ended(store, receiver.url, owner="key_1")
        deliverer(store).deliver_due(time.time())
        ((headers, body),) = receiver.received
        with pytest.raises(Exception, match="No matching signature"):
            Signer(webhook_secret(store.redis, "key_2")).verify(body, headers)

    def test_links_are_absolute_where_the_public_url_is_known(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        deliverer(store, public_url="https://video.example/").deliver_due(time.time())
        found = json.loads(receiver.received[0][1])["data"]["links"]
        assert found["job"] == f"https://video.example/jobs/{job_id}"
        assert found["video"] == f"https://video.example/jobs/{job_id}/video?token=t"

    def test_the_link_to_the_video_is_signed(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        path, _, token = signed_video_link(store.redis, 60)(store.get(job_id)).partition("?token=")
        assert path == f"/jobs/{job_id}/video"
        assert links.verify(links.signing_secret(store.redis), token, job_id) == "valid"


class TestRetries:
    """What happens until it has arrived, or never does."""

    def test_after_a_500_it_is_sent_again_under_the_same_id(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        receiver.answers = [(500, {})]
        attempts: list[str] = []
        sender, now = deliverer(store, on_attempt=attempts.append), time.time()
        assert sender.deliver_due(now)
        webhook = webhook_of(store, job_id)
        assert webhook.state == "pending"
        assert webhook.next_attempt_at is not None
        assert webhook.next_attempt_at - webhook.deliveries[0].at == timedelta(seconds=RETRY_SECONDS[0])
        assert not sender.deliver_due(now + RETRY_SECONDS[0] - 1)
        assert sender.deliver_due(now + RETRY_SECONDS[0])
        webhook = webhook_of(store, job_id)
        assert [delivery.status_code for delivery in webhook.deliveries] == [500, 200]
        assert (webhook.state, outbox(store)) == ("delivered", [])
        assert attempts == ["postponed", "delivered"]
        assert receiver.message_ids == [f"msg_{job_id}"] * 2
        for headers, body in receiver.received:
            Signer(webhook_secret(store.redis, None)).verify(body, headers)

    def test_after_the_last_attempt_it_has_failed_for_good(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        receiver.answers = [(503, {})] * 20
        sender, now = deliverer(store), time.time()
        for pause in (*RETRY_SECONDS, 0):
            assert sender.deliver_due(now)
            assert not sender.deliver_due(now + pause - 1)
            now += pause
        webhook = webhook_of(store, job_id)
        assert (webhook.state, webhook.next_attempt_at, outbox(store)) == ("failed", None, [])
        assert len(webhook.deliveries) == len(receiver.received) == len(RETRY_SECONDS) + 1
        assert webhook.deliveries[-1].error == "the answer was 503"

    @pytest.mark.parametrize(
        ("asked_for", "pause"),
        [
            ("90", 90),
            ("1", RETRY_SECONDS[0]),
            ("999999999", 24 * 3600),
            ("9" * 5000, RETRY_SECONDS[0]),
            ("-1", RETRY_SECONDS[0]),
            ("Wed, 21 Oct 2065 07:28:00 GMT", RETRY_SECONDS[0]),
        ],
        ids=["longer", "shorter", "too long", "no number", "negative", "date"],
    )
    def test_retry_after_counts_when_it_is_longer_up_to_a_day(
        self, store: JobStore, receiver: Receiver, asked_for: str, pause: int
    ) -> None:
        job_id = ended(store, receiver.url)
        receiver.answers = [(429, {"Retry-After": asked_for})]
        deliverer(store).deliver_due(time.time())
        webhook = webhook_of(store, job_id)
        assert webhook.next_attempt_at is not None
        assert webhook.next_attempt_at - webhook.deliveries[0].at == timedelta(seconds=pause)

    def test_410_ends_it_at_once(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        receiver.answers = [(410, {})]
        deliverer(store).deliver_due(time.time())
        webhook = webhook_of(store, job_id)
        assert (webhook.state, webhook.next_attempt_at, outbox(store)) == ("failed", None, [])

    def test_a_deleted_job_is_told_to_nobody(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        store.delete(job_id)
        # As left behind by whoever claimed it in the same moment.
        store.redis.zadd("ripple:webhooks", {job_id: 0})
        assert deliverer(store).deliver_due(time.time())
        assert (receiver.received, outbox(store)) == ([], [])

    def test_what_is_recorded_as_delivered_is_not_sent_again(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, receiver.url)
        store.set_webhook(job_id, webhook_of(store, job_id).model_copy(update={"state": "delivered"}))
        assert deliverer(store).deliver_due(time.time())
        assert (receiver.received, outbox(store)) == ([], [])


class TestManyDeliverers:
    """Workers come and go."""

    def test_many_at_once_send_each_message_once(self, store: JobStore, receiver: Receiver) -> None:
        job_ids = [ended(store, receiver.url) for _ in range(20)]
        now, senders = time.time(), [deliverer(store) for _ in range(4)]

        def work(sender: WebhookDeliverer) -> None:
            while sender.deliver_due(now):
                pass

        threads = [threading.Thread(target=work, args=(sender,)) for sender in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(receiver.message_ids) == sorted(f"msg_{job_id}" for job_id in job_ids)

    def test_one_that_dies_before_it_recorded_the_delivery_is_followed_by_another_with_the_same_id(
        self, store: JobStore, receiver: Receiver, redis_server: Any
    ) -> None:
        job_id = ended(store, receiver.url)
        script = (
            "import time; from redis import Redis; from ripple_core.contract.settings import SharedSettings; "
            "from ripple_core.contract.store import JobStore; from worker.webhooks import WebhookDeliverer; "
            f"store = JobStore(Redis.from_url({redis_server.url!r})); settings = SharedSettings(); "
            "WebhookDeliverer(store, settings, lambda record: '/').deliver_due(time.time())"
        )
        environment = os.environ | {"RIPPLE_WEBHOOK_ALLOW": "127.0.0.1"}
        process = subprocess.Popen([sys.executable, "-c", script], env=environment)
        receiver.on_request = lambda: os.kill(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        receiver.on_request = lambda: None
        assert webhook_of(store, job_id).deliveries == []
        sender, now = deliverer(store), time.time()
        assert not sender.deliver_due(now)
        assert sender.deliver_due(now + LEASE_SECONDS)
        assert receiver.message_ids == [f"msg_{job_id}"] * 2
        assert webhook_of(store, job_id).state == "delivered"

    def test_the_threads_deliver_what_falls_due_past_a_record_that_cannot_be_read(
        self, store: JobStore, receiver: Receiver
    ) -> None:
        broken = ended(store, receiver.url)
        store.redis.hset(f"ripple:job:{broken}", "webhook", "{")
        job_id = ended(store, receiver.url)
        over, arrived = threading.Event(), threading.Event()
        receiver.on_request = arrived.set
        start_deliverers(deliverer(store), over)
        try:
            assert arrived.wait(30)
            assert receiver.message_ids == [f"msg_{job_id}"]
        finally:
            over.set()
            for thread in threading.enumerate():
                if thread.name == "webhooks":
                    thread.join(timeout=30)


class TestForgery:
    """A webhook must not make the worker knock where its owner could not."""

    @pytest.fixture
    def inner(self) -> Iterator[socket.socket]:
        """A service on this machine that must never see a connection."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()

    def test_a_name_that_changes_its_mind_after_submission_is_refused(
        self, store: JobStore, inner: socket.socket
    ) -> None:
        url = f"https://rebind.example:{inner.getsockname()[1]}/"
        answers = [resolver("8.8.8.8"), resolver("127.0.0.1")]

        def rebinding(host: str, port: int, **options: Any) -> Any:
            return answers.pop(0)(host, port, **options)

        check_webhook_url(url, (), rebinding)
        job_id = ended(store, url)
        assert deliverer(store, allow=(), resolver=rebinding).deliver_due(time.time())
        # Both answers are used up: the name was looked up once, and not again to connect.
        assert answers == []
        assert only_error(store, job_id) == "rebind.example leads to a loopback address, where webhooks may not go"
        assert webhook_of(store, job_id).state == "pending"

    @pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"])
    def test_what_is_no_longer_allowed_is_not_reached(self, store: JobStore, inner: socket.socket, host: str) -> None:
        job_id = ended(store, f"http://{host}:{inner.getsockname()[1]}/")
        deliverer(store, allow=()).deliver_due(time.time())
        assert "a loopback address" in only_error(store, job_id)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_is_a_failure_and_not_followed(
        self, store: JobStore, receiver: Receiver, inner: socket.socket, status: int
    ) -> None:
        job_id = ended(store, receiver.url)
        receiver.answers = [(status, {"Location": f"http://127.0.0.1:{inner.getsockname()[1]}/latest/meta-data/"})]
        deliverer(store).deliver_due(time.time())
        webhook = webhook_of(store, job_id)
        assert webhook.state == "pending"
        assert webhook.deliveries[0].error == f"the answer was {status}; redirects are not followed"
        assert len(receiver.received) == 1

    def test_the_environments_proxy_is_not_used(
        self, store: JobStore, receiver: Receiver, inner: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{inner.getsockname()[1]}")
        job_id = ended(store, receiver.url)
        deliverer(store).deliver_due(time.time())
        assert webhook_of(store, job_id).state == "delivered"

    def test_the_connection_goes_to_the_checked_address_and_the_host_header_to_the_name(
        self, store: JobStore, receiver: Receiver
    ) -> None:
        url = f"http://hook.internal:{receiver.server_port}/hook?x=1"
        job_id = ended(store, url)
        deliverer(store, allow=("hook.internal",), resolver=resolver("127.0.0.1")).deliver_due(time.time())
        assert webhook_of(store, job_id).state == "delivered"
        assert receiver.received[0][0]["host"] == f"hook.internal:{receiver.server_port}"


class TestHardReceivers:
    """No receiver holds up a worker, and none gets its words into the record."""

    @contextmanager
    def speaking(self, *words: bytes) -> Iterator[str]:
        """Says these words to whoever connects, the last one again and again, slowly."""
        over = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))

        def speak() -> None:
            with suppress(OSError), listener, listener.accept()[0] as connection:
                for word in words:
                    connection.sendall(word)
                while words and not over.wait(0.05):
                    connection.sendall(words[-1])
                over.wait()

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            thread.join(timeout=30)

    @pytest.mark.parametrize(
        "words",
        [(), (b"HTTP/1.1 200 OK\r\n", b"x-slow: 1\r\n"), (b"H",)],
        ids=["silent", "header after header", "byte after byte"],
    )
    def test_one_that_never_comes_to_an_end_is_given_up(self, store: JobStore, words: tuple[bytes, ...]) -> None:
        with self.speaking(*words) as url:
            job_id = ended(store, url)
            deliverer(store, timeout_seconds=0.4).deliver_due(time.time())
        assert only_error(store, job_id) == "no answer within 0.4 s"

    def test_an_endless_body_is_not_waited_for(self, store: JobStore) -> None:
        with self.speaking(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000) as url:
            job_id = ended(store, url)
            deliverer(store).deliver_due(time.time())
        assert webhook_of(store, job_id).state == "delivered"

    def test_the_greeting_of_another_protocol_stays_out_of_the_record(self, store: JobStore) -> None:
        with self.speaking(b"SSH-2.0-inner-host\r\n\r\n") as url:
            job_id = ended(store, url)
            deliverer(store).deliver_due(time.time())
        assert only_error(store, job_id) == "the answer was no HTTP"

    def test_nobody_there_is_a_failed_attempt(self, store: JobStore) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            job_id = ended(store, f"http://127.0.0.1:{unused.getsockname()[1]}/")
            deliverer(store).deliver_due(time.time())
        assert only_error(store, job_id).startswith("no connection: ")

    def test_the_next_address_is_tried_when_one_does_not_answer(self, store: JobStore, receiver: Receiver) -> None:
        job_id = ended(store, f"http://hook.internal:{receiver.server_port}/")
        two = resolver("127.0.0.2", "127.0.0.1")
        deliverer(store, allow=("hook.internal",), resolver=two).deliver_due(time.time())
        assert webhook_of(store, job_id).state == "delivered"


class TestTls:
    """The certificate is that of the name, whatever address was connected to."""

    @pytest.fixture
    def secure_receiver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
        """Has a certificate for hook.example and 127.0.0.9, which is trusted."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hook.example")])
        names = [x509.DNSName("hook.example"), x509.IPAddress(ip_address("127.0.0.9"))]
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem, encoding = tmp_path / "both.pem", serialization.Encoding.PEM
        secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pem.write_bytes(secret + certificate.public_bytes(encoding))
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        receiver = Receiver()
        receiver.socket = context.wrap_socket(receiver.socket, server_side=True, do_handshake_on_connect=False)
        with serving(receiver):
            yield receiver

    def test_a_good_certificate_is_accepted(self, store: JobStore, secure_receiver: Receiver) -> None:
        job_id = ended(store, f"https://hook.example:{secure_receiver.server_port}/")
        deliverer(store, resolver=resolver("127.0.0.1")).deliver_due(time.time())
        assert webhook_of(store, job_id).state == "delivered"

    def test_another_names_certificate_is_refused(self, store: JobStore, secure_receiver: Receiver) -> None:
        job_id = ended(store, f"https://other.example:{secure_receiver.server_port}/")
        deliverer(store, resolver=resolver("127.0.0.1")).deliver_due(time.time())
        assert "certificate" in only_error(store, job_id)
        assert secure_receiver.received == []
