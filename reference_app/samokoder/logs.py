"""Structured logs: one JSON object a line on standard output, for our own words and the libraries' alike."""

import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import ExcInfo, Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)

#: What users send is in the local variables of a traceback, and in the lines in which PostgreSQL names a row.
_FRAMES = ExceptionDictTransformer(show_locals=False)
_ROWS = re.compile(r"\n(?:DETAIL|CONTEXT):.*")


def _without_rows(errors: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for error in errors:
        inside = [_without_rows(each) for each in error.get("exceptions") or ()]
        kept.append({**error, "exc_value": _ROWS.sub("", str(error["exc_value"])), "exceptions": inside})
    return kept


def _traceback(exc_info: ExcInfo) -> list[dict[str, Any]]:
    return _without_rows(_FRAMES(exc_info))


def set_up_logs(part: str) -> logging.Handler:
    """Send every log line of this process, whoever writes it, to standard output as JSON with `part` in it.

    Returns the handler, for a logger whose own handlers somebody else insists on.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda _logger, _method, event: {**event, "part": part},
                structlog.processors.ExceptionRenderer(_traceback),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
    logging.getLogger("uvicorn").propagate = True
    # What we log or count ourselves. The pool's name is that of our class, not SQLAlchemy's.
    for name in ("httpx", "alembic.runtime.migration", "samokoder.db._CountedPool"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Without a handler within reach uvicorn writes no access log: the line with the request id replaces it.
    logging.getLogger("uvicorn.access").propagate = False
    return handler
