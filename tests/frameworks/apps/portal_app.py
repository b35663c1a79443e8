"""Programs without an event loop, each a function here: `portal_app.py NAME`."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from typing import NoReturn

from rmqarq import App, ConnectionFailed, Portal

app = App()
portal = Portal(app)
CALLS = 25


@app.task
def note(who: str, number: int) -> None:
    """Never run here: the tests read the queue."""


def send(who: str) -> None:
    """Enqueue so many calls, as fast as the other process does."""
    for number in range(CALLS):
        portal.call(note.enqueue, who, number)


async def reconnects() -> int:
    """Tell how often a connection was lost, and made anew, in this process."""
    return app.transport.reconnects


def fork() -> int:
    """Fork, whatever threads there are: that a used portal survives it is the point."""
    with warnings.catch_warnings():
        # Python from 3.12 on warns about the threads of the parent
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(*whos: str) -> NoReturn:
    """Be the child, and end like any other program."""
    try:
        for who in whos:
            send(who)
        print("child", portal.call(reconnects), flush=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.exit(0)


def forked() -> None:
    """Enqueue in a parent and in its child, with a portal that was in use before."""
    send("before")
    child = fork()
    if not child:
        in_child("child")
    send("parent")
    _, status = os.waitpid(child, 0)
    send("after")
    print("parent", portal.call(reconnects), os.waitstatus_to_exitcode(status))


def forked_midst() -> None:
    """Fork again and again while other threads are calling."""
    send("before")
    threads = [threading.Thread(target=send, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    children: list[int] = []
    for number in range(4):
        time.sleep(0.02)
        children.append(fork())
        if not children[-1]:
            in_child(f"child {number}")
    for thread in threads:
        thread.join()
    codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]
    print("parent", portal.call(reconnects), codes)


def locked() -> None:
    """Fork at a moment when another thread is in the midst of handing over a call."""
    send("before")
    lock = portal._keeper._lock
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            forked.wait()

    threading.Thread(target=hold).start()
    held.wait()
    if not (child := fork()):
        signal.alarm(20)  # rather than wait for ever for a thread that is not there
        in_child("child")
    forked.set()
    send("parent")
    print("parent", os.waitpid(child, 0)[1])


def closed() -> None:
    """Close before the fork: no thread is left, so no Python warns."""
    send("before")
    portal.close()
    if not (child := os.fork()):
        in_child("child")
    send("parent")
    print("parent", os.waitpid(child, 0)[1])


def in_pool_process() -> None:
    """Run in a child of multiprocessing, which skips what is done at exit."""
    with portal:
        send("child")


def pool() -> None:
    """Let multiprocessing fork."""
    send("before")
    process = multiprocessing.get_context("fork").Process(target=in_pool_process)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    send("parent")
    process.join()
    print("parent", process.exitcode)


def ended() -> None:
    """End while daemons are calling; each says what has returned."""

    def call(number: int) -> None:
        with suppress(ConnectionFailed):  # the program is ending
            while True:
                portal.call(note.enqueue, "daemon", number)
                os.write(1, b"sent\n")

    for number in range(8):
        threading.Thread(target=call, args=(number,), daemon=True).start()
    time.sleep(0.5)


def others() -> None:
    """End the main thread first: another one goes on calling."""

    def call() -> None:
        time.sleep(0.3)
        send("other")
        print("other")

    portal.call(note.enqueue, "main", 0)
    threading.Thread(target=call).start()


def late() -> None:
    """Call when the interpreter is ending."""
    atexit.register(lambda: print("registered late:", len(portal.call(two))))
    portal.call(two)


async def two() -> str:
    """Be quick."""
    return "ok"


def unused() -> None:
    """Make a portal, and call nothing."""
    print(threading.active_count())


if __name__ == "__main__":
    globals()[sys.argv[1]]()
