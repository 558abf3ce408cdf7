"""The ways to PostgreSQL, to Redis and to what is stored encrypted, and how a route of the API gets at them."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Final

import structlog
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import Depends, HTTPException, Request
from pydantic import SecretStr
from redis import exceptions
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from samokoder.db import PROBE, NotMigratedError, make_engine, require_schema
from samokoder.settings import Settings

CONNECT_SECONDS: Final = 2
ANSWER_SECONDS: Final = 4
READY_SECONDS: Final = 2.0
#: With waits of 0.1 s, 0.2 s, ... 2 s: some 20 s in all, longer than Redis takes to restart.
PATIENT_TRIES: Final = 12
NOT_READABLE: Final = "stored data is not readable with this APP_SECRET_KEY"

log = structlog.stdlib.get_logger(__name__)


class _Pipeline(Pipeline):
    """What arq asks under a watch. It ends where the connection is lost meanwhile, as at the end of a rotation."""

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Ask; of a job that was to begin, answer as if another worker had it: arq looks again at its next poll."""
        try:
            return await super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except exceptions.WatchError:
            begins = args[0] == "EXISTS" and str(args[1]).startswith(in_progress_key_prefix)
            if not begins and args[0] != "ZSCORE":
                raise
            return 1 if begins else None


class _Queue(ArqRedis):
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def make_queue(settings: Settings, *, tries: int = 1) -> ArqRedis:
    """Make the pool, which connects at first use and repeats what fails at most `tries` times.

    The API fails fast, but not where its sessions were ended with a password that was withdrawn (1). arq ends at its
    first failed poll, so the worker gets PATIENT_TRIES.
    """
    return _Queue(
        host=settings.redis_host,
        port=settings.redis_port,
        username=settings.redis_username,
        password=settings.redis_password.get_secret_value(),
        db=settings.redis_db,
        ssl=settings.redis_tls,
        ssl_ca_certs=settings.redis_ca_file or None,
        ssl_check_hostname=True,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(ExponentialBackoff(cap=2, base=0.1), tries),
        # OSError is a refused connection: the client turns it into its own error only after the last try.
        retry_on_error=[exceptions.ConnectionError, exceptions.TimeoutError, OSError],
        # No CLIENT SETINFO: Redis 7.0 does not know it, so a user's rules cannot allow it on all of Redis 7.
        lib_name=None,
        lib_version=None,
    )


class Vault:
    """Encrypts what is stored, under a key made from APP_SECRET_KEY."""

    def __init__(self, secret: SecretStr) -> None:
        key = HKDF(SHA256(), length=32, salt=None, info=b"samokoder notes").derive(secret.get_secret_value().encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, text: str | None) -> bytes | None:
        """Encrypt a text; None stays None."""
        return None if text is None else self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes | None) -> str | None:
        """Decrypt a text; the request fails where another key sealed it, or nobody did."""
        try:
            return None if sealed is None else self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            log.error(NOT_READABLE)  # noqa: TRY400 - a trace adds nothing
            raise HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR, NOT_READABLE) from None


async def _verdict(ask: Callable[[], Awaitable[object]]) -> str:
    """Give "ok", or the kind of error (never its text, which may name hosts and users)."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await ask()
    except TimeoutError:
        return f"no answer within {READY_SECONDS:g} s"
    except NotMigratedError as error:
        return str(error)
    except (SQLAlchemyError, exceptions.RedisError, OSError) as error:
        return f"failed: {type(error).__name__}"
    return "ok"


class Backends:
    """All of them, for as long as the process lives; `stopping` is set once it is told to end."""

    def __init__(self, settings: Settings, part: str, queue: ArqRedis) -> None:
        self.settings, self.queue = settings, queue
        self.engine = make_engine(settings, part)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.vault = Vault(settings.app_secret_key)
        self.migrated = False
        self.stopping = asyncio.Event()

    async def ask_database(self) -> None:
        """Raise unless PostgreSQL answers, and NotMigratedError unless its schema is new enough, as it then stays."""
        async with self.engine.connect() as connection:
            if self.migrated:
                await connection.execute(select(1), execution_options=PROBE)
            else:
                await require_schema(connection)
                self.migrated = True

    async def ready(self) -> dict[str, str]:
        """Ask PostgreSQL and Redis, each for at most 2 seconds, both at once; return "ok" of each, or what is wrong."""
        database, redis = await asyncio.gather(_verdict(self.ask_database), _verdict(self.queue.ping))
        return {"database": database, "redis": redis}

    async def close(self) -> None:
        """Give every connection back."""
        await self.queue.aclose(close_connection_pool=True)
        await self.engine.dispose()


def _backends(request: Request) -> Backends:
    backends: Backends = request.app.state.backends
    return backends


BackendsDep = Annotated[Backends, Depends(_backends)]


async def _session(backends: BackendsDep) -> AsyncIterator[AsyncSession]:
    async with backends.sessions() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(_session)]
