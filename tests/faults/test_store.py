"""The video store is slow, away, or outlives the worker that writes to it."""

import time
from collections.abc import Callable

import pytest
from fleet import Fleet, Victim
from slow_proxy import SlowProxy


@pytest.mark.parametrize("victim", ["worker", pytest.param("both", marks=pytest.mark.slow)])
def test_a_worker_killed_while_it_stores(
    start_fleet: Callable[..., Fleet], proxy: SlowProxy, s3_url: str, s3_endpoint: str, victim: Victim
) -> None:
    fleet = start_fleet(2, RIPPLE_STORE_URL=s3_url)
    with fleet.storing_slowly(proxy) as job_id:
        fleet.at_work(job_id).kill(victim)
        assert fleet.client.get(f"/jobs/{job_id}/video").json()["code"] == "video_not_ready"
    fleet.check_one_result_in_s3(s3_url, s3_endpoint, job_id, attempts=2)


def test_a_store_that_is_away_for_a_moment_costs_no_second_attempt(
    start_fleet: Callable[..., Fleet], proxy: SlowProxy, s3_url: str, s3_endpoint: str
) -> None:
    fleet = start_fleet(1, RIPPLE_STORE_URL=s3_url)
    job_id = fleet.submit()
    fleet.wait_for_stage(job_id, "denoise")
    proxy.is_cut = True
    assert fleet.wait_for_stage(job_id, "store")
    time.sleep(3)
    proxy.is_cut = False
    fleet.check_one_result_in_s3(s3_url, s3_endpoint, job_id, attempts=1)
