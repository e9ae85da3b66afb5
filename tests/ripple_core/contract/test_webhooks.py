"""What server and workers agree on about webhooks: which URLs are taken, secrets, and the outbox."""

import socket
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from samples import REQUEST
from standardwebhooks import Webhook as Signer

from ripple_core.contract.errors import InvalidRequest
from ripple_core.contract.job import JobRecord, Webhook, new_job_id, utc_now
from ripple_core.contract.store import JobStore
from ripple_core.contract.webhooks import WebhookOutbox, check_webhook_url, webhook_secret


def resolver(*addresses: str) -> Any:
    return lambda _host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in addresses]


def refusal(url: str, allow: tuple[str, ...] = (), addresses: tuple[str, ...] = ("8.8.8.8",)) -> str:
    with pytest.raises(InvalidRequest) as error:
        check_webhook_url(url, allow, resolver(*addresses))
    assert [violation.field for violation in error.value.violations] == ["webhook.url"]
    return str(error.value)


class TestUrls:
    """The check at submission."""

    @pytest.mark.parametrize(
        "url",
        [
            "https://hooks.example/a?b=c",
            "https://hooks.example:8443",
            "https://bücher.example",
            "HTTPS://HOOKS.EXAMPLE.",
        ],
    )
    def test_public_https_is_taken(self, url: str) -> None:
        check_webhook_url(url, (), resolver("8.8.8.8", "2606:4700::1111"))

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "2130706433", "0x7f.1", "0177.1", "127.1", "0", "0.0.0.0", "localhost"),  # noqa: S104
            *("169.254.169.254", "0xa9fea9fe", "10.0.0.1", "100.64.0.1", "224.0.0.1", "[::1]", "[::]"),
            *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]"),
            *("[fd00:ec2::254]", "[::127.0.0.1]"),
        ],
    )
    def test_the_systems_resolver_unmasks_every_way_of_writing_an_inner_address(self, host: str) -> None:
        with pytest.raises(InvalidRequest, match=r"webhooks may not go.*RIPPLE_WEBHOOK_ALLOW"):
            check_webhook_url(f"https://{host}/", ())

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("http://hooks.example/", "use https://"),
            ("ftp://hooks.example/", "must begin with https://"),
            ("hooks.example/path", "must begin with https://"),
            ("https:///path", "must begin with https://"),
            ("https://name:word@hooks.example/", "must not contain a user name"),
            ("https://127.0.0.1\\@hooks.example/", "must not contain a user name"),
            ("https://hooks.example/#part", "must not contain a #fragment"),
            ("https://hooks.example:0/", "port 0 does not exist"),
            ("https://hooks.example:65536/", "port 65536 does not exist"),
            ("https://hooks.example:http/", "it is no URL"),
            ("https://0177.0.0.1/", "it is no URL"),
            ("https://hooks.example/\r\nHost: other", "it is no URL"),
        ],
    )
    def test_a_url_of_another_form_is_refused_with_its_reason(self, url: str, reason: str) -> None:
        assert reason in refusal(url)

    def test_a_password_is_not_repeated(self) -> None:
        assert "hunter2" not in refusal("https://me:hunter2@hooks.example/")

    def test_a_name_that_resolves_to_nothing_is_refused(self) -> None:
        assert "does not resolve" in refusal("https://hooks.example/", addresses=())
        with pytest.raises(InvalidRequest, match="does not resolve"):
            check_webhook_url(f"https://{'a' * 70}.example/", ())

    def test_a_listed_host_may_use_plain_http(self) -> None:
        check_webhook_url("http://hook.internal/", ("hook.internal",), resolver("10.0.0.1"))
        check_webhook_url("http://10.0.0.1:8080/", ("10.0.0.0/8",), resolver("10.0.0.1"))
        assert "RIPPLE_WEBHOOK_ALLOW" in refusal("http://hook.internal/", ("10.0.0.0/8",), ("10.0.0.1",))


def test_each_owner_has_one_lasting_secret_that_signs(redis_client: Redis) -> None:
    secrets = [webhook_secret(redis_client, owner) for owner in (None, "key_1", "key_2")]
    assert len(set(secrets)) == 3
    assert secrets == [webhook_secret(redis_client, owner) for owner in (None, "key_1", "key_2")]
    assert all(Signer(secret).sign("msg_1", utc_now(), "{}") for secret in secrets)
    assert all(secret.startswith("whsec_") for secret in secrets)


class TestOutbox:
    """Entries get in with the end of a job, and out with their delivery."""

    @pytest.fixture
    def store(self, redis_client: Redis) -> JobStore:
        return JobStore(redis_client)

    @pytest.fixture
    def outbox(self, redis_client: Redis) -> WebhookOutbox:
        return WebhookOutbox(redis_client)

    def cancelled(self, store: JobStore, url: str | None = "https://hooks.example/") -> str:
        webhook = Webhook(url=url) if url else None
        record = JobRecord(id=new_job_id(), created_at=utc_now(), request=REQUEST, webhook=webhook)
        pipeline = store.redis.pipeline()
        store.add(record, pipeline)
        pipeline.execute()
        store.request_cancel(record.id)
        return record.id

    def test_a_job_is_due_when_it_ends_and_only_if_it_has_a_webhook(
        self, store: JobStore, outbox: WebhookOutbox
    ) -> None:
        self.cancelled(store, url=None)
        job_id = self.cancelled(store)
        now = utc_now().timestamp()
        assert [outbox.claim(now, 60), outbox.claim(now, 60)] == [job_id, None]

    def test_a_claim_holds_for_its_lease(self, store: JobStore, outbox: WebhookOutbox) -> None:
        job_id = self.cancelled(store)
        now = utc_now().timestamp()
        assert outbox.claim(now, 60) == job_id
        assert outbox.claim(now + 59, 60) is None
        assert outbox.claim(now + 60, 60) == job_id

    def test_the_longest_due_comes_first_and_a_postponed_one_in_its_time(
        self, store: JobStore, outbox: WebhookOutbox
    ) -> None:
        first, second = self.cancelled(store), self.cancelled(store)
        now = utc_now().timestamp()
        outbox.postpone(first, now + 5)
        assert [outbox.claim(now, 60), outbox.claim(now, 60)] == [second, None]
        assert outbox.claim(now + 5, 60) == first

    def test_an_entry_that_has_left_does_not_come_back(self, store: JobStore, outbox: WebhookOutbox) -> None:
        deleted, delivered = self.cancelled(store), self.cancelled(store)
        now = utc_now().timestamp()
        store.expire(deleted, timedelta(days=1))
        outbox.remove(delivered)
        for job_id in (deleted, delivered):
            outbox.postpone(job_id, now)
        assert outbox.claim(now, 60) is None
