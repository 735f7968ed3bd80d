"""A batch's fsyncs run in several threads: each file is synced before its rename, and an error stays its message's."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from services.storage.delivery import Delivered, Deliveries, Failed
from tests.mail_volume import ANNA, House, files

MESSAGES = 9


def test_a_failed_fsync_in_any_thread_fails_its_message_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real, threads, order = os.fsync, set[str](), list[tuple[str, str]]()
    together = threading.Barrier(4, timeout=5)

    def fsync(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isfile(name) and ".incoming" in name:
            thread = threading.current_thread().name
            if thread not in threads:
                threads.add(thread)
                together.wait()  # until all four are at it at the same time
            if b"bad" in open(name, "rb").read():  # noqa: SIM115
                raise OSError(5, "Input/output error")
            order.append(("fsync", os.path.basename(name)))
        real(descriptor)

    rename = os.rename

    def renamed(source: str, target: str, **folders: int) -> None:
        order.append(("rename", source))
        rename(source, target, **folders)

    async def story() -> list[Delivered | Failed]:
        deliveries = Deliveries(house.mail)
        await deliveries.start()
        # All ask in the same turn of the loop: they go in one batch.
        results = await asyncio.gather(*(one(deliveries, number) for number in range(MESSAGES)))
        await deliveries.close()
        return results

    async def one(deliveries: Deliveries, number: int) -> Delivered | Failed:
        sink = deliveries.incoming()
        sink.write(b"bad\r\n" if number == 4 else b"good\r\n")
        delivery = deliveries.begin(f"trace{number}")
        await delivery.add_recipient(ANNA, ANNA, b"X: y\r\n")
        await delivery.body(sink)
        (result,) = await delivery.commit()
        sink.close()
        return result

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    results = asyncio.run(story())
    assert [isinstance(result, Failed) for result in results] == [number == 4 for number in range(MESSAGES)]
    assert len(files(house.maildir / "new")) == MESSAGES - 1
    assert len(threads) == 4
    for name in files(house.maildir / "new"):
        assert order.index(("fsync", name)) < order.index(("rename", name))
