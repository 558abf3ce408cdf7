"""Registration and login: passwords by argon2, tokens signed by SECRET_KEY. Projects and jobs need no login."""

import asyncio
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from samokoder.backends import BackendsDep, SessionDep
from samokoder.db import User
from samokoder.metrics import AUTH_ATTEMPTS
from samokoder.schemas import Credentials, TokenOut, UserOut
from samokoder.settings import Settings

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "samokoder"
# OWASP's least: 19 MiB for each, and few at a time, since the container has some hundred MiB in all. In threads:
# it takes tens of milliseconds of a core, and the loop goes on answering others meanwhile.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_AT_A_TIME: Final = asyncio.Semaphore(4)
#: Checked where there is no such user: the answer takes as long, and so does not tell who has an account.
_NOBODYS_HASH: Final = _HASHER.hash(secrets.token_hex())

BearerDep = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
router = APIRouter(prefix="/auth")


def _proves(password: str, password_hash: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except VerificationError:
        return False


def _keys(settings: Settings) -> dict[str, str]:
    """Return the keys whose tokens are accepted, by their ids; the first one signs.

    So nobody is logged out by a rotation: before it, the next key is among them; after it, the previous one.
    """
    keys = (key.get_secret_value() for key in (settings.secret_key, settings.secret_key_previous) if key)
    return {hashlib.sha256(b"id of " + key.encode()).hexdigest()[:16]: key for key in keys}


def _refusal(detail: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNAUTHORIZED, detail, {"www-authenticate": "Bearer"})


@router.post("/register", status_code=HTTPStatus.CREATED, responses={409: {"description": "the address is taken"}})
async def register(body: Credentials, session: SessionDep) -> UserOut:
    """Make an account."""
    async with _AT_A_TIME:
        password_hash = await asyncio.to_thread(_HASHER.hash, body.password.get_secret_value())
    new = insert(User).values(email=body.email, password_hash=password_hash)
    user = await session.scalar(new.on_conflict_do_nothing(index_elements=[User.email]).returning(User))
    await session.commit()
    if user is None:
        raise HTTPException(HTTPStatus.CONFLICT, "there is such a user already")
    return UserOut.model_validate(user)


@router.post("/login", responses={401: {"description": "no such user, or not the password"}})
async def login(body: Credentials, session: SessionDep, backends: BackendsDep) -> TokenOut:
    """Give a token to whoever proves to be a user."""
    user = await session.scalar(select(User).where(User.email == body.email))
    await session.commit()  # gives the connection back: what follows may wait for its turn
    password_hash = user.password_hash if user else _NOBODYS_HASH
    async with _AT_A_TIME:
        proven = await asyncio.to_thread(_proves, body.password.get_secret_value(), password_hash)
    AUTH_ATTEMPTS.labels("success" if user and proven else "failure").inc()
    if user is None or not proven:
        raise _refusal("wrong e-mail address or password")
    lasts, now = timedelta(minutes=backends.settings.token_minutes), datetime.now(UTC)
    claims = {"iss": _ISSUER, "sub": str(user.id), "iat": now, "exp": now + lasts}
    key_id, key = next(iter(_keys(backends.settings).items()))
    token = jwt.encode(claims, key, _ALGORITHM, {"kid": key_id})
    return TokenOut(access_token=token, expires_in=int(lasts.total_seconds()))


async def _user(session: SessionDep, backends: BackendsDep, bearer: BearerDep) -> User:
    token, must_have = bearer.credentials if bearer else "", ["exp", "sub", "iss"]
    try:
        key = _keys(backends.settings)[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key, [_ALGORITHM], options={"require": must_have}, issuer=_ISSUER)
        user = await session.get(User, UUID(claims["sub"]))
    except (jwt.InvalidTokenError, LookupError, ValueError):
        user = None
    if user is None:
        raise _refusal("no good token")
    return user


UserDep = Annotated[User, Depends(_user)]


async def _user_or_nobody(session: SessionDep, backends: BackendsDep, bearer: BearerDep) -> User | None:
    return await _user(session, backends, bearer) if bearer else None


#: Of a route that needs no login; a token that is no good is refused all the same.
AnybodyDep = Annotated[User | None, Depends(_user_or_nobody)]


@router.get("/me", responses={401: {"description": "no token, or not a good one"}})
async def me(user: UserDep) -> UserOut:
    """Show who the token was given to."""
    return UserOut.model_validate(user)


@router.delete("/me", status_code=HTTPStatus.NO_CONTENT)
async def delete_me(user: UserDep, session: SessionDep) -> None:
    """Remove the account that the token was given for, with its projects; the token is worth nothing afterwards."""
    await session.delete(user)
    await session.commit()
