"""A page worker: reads jobs from standard input, answers on standard output, ends when its input does.

Hostile pages are met here, under kernel limits on CPU seconds per job and on memory. A page that breaks a
limit ends this process and nothing else; `pool` turns that into the page's error.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from allod.engines.launch import TELEMETRY_OFF
from allod.engines.ocr import jobs
from allod.engines.ocr.pages import count
from allod.engines.ocr.recognise import Settings, recognise
from allod.errors import AllodError
from allod.limits import INSPECT_CPU_SECONDS_MAX, PAGE_CPU_SECONDS_MAX, PAGE_MEMORY_BYTES_MAX


def main(settings: Settings) -> None:
    os.environ.update(TELEMETRY_OFF)
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to the log, not between the frames
    resource.setrlimit(resource.RLIMIT_AS, (PAGE_MEMORY_BYTES_MAX, PAGE_MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a customer's page
    _send(stdout, jobs.Ready())
    while body := _next(stdin):
        _send(stdout, _answer(jobs.job(body), settings))


def _answer(job: jobs.Job, settings: Settings) -> jobs.Answer:
    try:
        if isinstance(job, jobs.Count):
            _allow_cpu(INSPECT_CPU_SECONDS_MAX)
            return jobs.Counted(count(Path(job.path), job.kind))
        _allow_cpu(PAGE_CPU_SECONDS_MAX)
        return jobs.PageRead(recognise(Path(job.path), job.kind, job.index, settings))
    except AllodError as e:
        return jobs.Refused(e.status, e.code, e.message, e.hint)
    except MemoryError:
        return jobs.Refused(413, "document.page-too-large", "the page needs more memory than a page may use")
    except Exception as e:  # a decoder's surprise is this page's error, not the worker's end
        print(f"page failed: {type(e).__name__}", file=sys.stderr)
        return jobs.Refused(422, "document.page-failed", f"the page could not be read ({type(e).__name__})")


def _allow_cpu(seconds: int) -> None:
    """The soft limit moves with the work done so far: it bounds this job, not the worker's life."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.RLIM_INFINITY))


def _next(stdin: BinaryIO) -> bytes:
    head = stdin.read(jobs.LENGTH_BYTES)
    return stdin.read(int.from_bytes(head, "big")) if len(head) == jobs.LENGTH_BYTES else b""


def _send(stdout: BinaryIO, answer: jobs.Answer) -> None:
    stdout.write(jobs.frame(answer))
    stdout.flush()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Settings))
