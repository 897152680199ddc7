"""The executed copy of a lost run is settled by whoever finds it, and by whoever still ran it: both at the same time."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from uuid import uuid4

from chartinsight_lib.running import executed_copy
from chartinsight_lib.running.secrecy import redact_file

STARTED = datetime(2024, 8, 5, 22, 30, tzinfo=UTC)
COPY = json.dumps({"cells": [{"source": "the-canary"}]})
SECRETS = {"THE_KEY": "the-canary"}


def test_two_who_settle_one_copy_at_once_leave_it_whole_and_without_a_secret(tmp_path):
    with ThreadPoolExecutor(2) as threads:
        for _ in range(200):
            run_id = uuid4()
            output = executed_copy.place(tmp_path, "made", STARTED, run_id)
            executed_copy.part_of(output).write_text(COPY)
            both = Barrier(2)

            def runner(output=output, both=both):
                both.wait()
                redact_file(executed_copy.part_of(output), SECRETS)
                executed_copy.publish(output)

            def finder(run_id=run_id, both=both):
                both.wait()
                for path in executed_copy.left_by(tmp_path, run_id):
                    redact_file(path, SECRETS)
                executed_copy.settle_unfinished(tmp_path, run_id)

            for done in [threads.submit(runner), threads.submit(finder)]:
                done.result()
            assert json.loads(output.read_text()) == {"cells": [{"source": "[hidden]"}]}
    left = [path.name for path in (tmp_path / "made").iterdir() if ".part" in path.name or path.suffix == ".tmp"]
    assert left == []
