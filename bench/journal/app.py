"""A trading journal, as people write them with FastAPI: a JWT login, lists and analytics of each user, and market data for all who are logged in.

Nothing here knows of a cache: no `Cache-Control`, but for the account, which is not to be stored.
"""

import asyncio
import hashlib
import itertools
import time
from collections import Counter

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

SECRET = "journal-secret-of-at-least-32-bytes"
ISSUER = "https://journal.example"
AUDIENCE = "journal"
LIFETIME = 3600
QUERY_SECONDS = 0.002  # what a query takes

app = FastAPI(openapi_url=None)
bearer = HTTPBearer()
calls = Counter()
serials = itertools.count(1)


class Trade(BaseModel):
    symbol: str
    side: str
    quantity: int
    entry: float
    exit: float | None = None


class Note(BaseModel):
    text: str


class Login(BaseModel):
    user: str
    password: str


class Journal:
    """What one user has; `version` counts the writes."""

    def __init__(self, user):
        self.version = 0
        seed = int.from_bytes(hashlib.sha256(user.encode()).digest()[:4], "big")
        self.lists = {kind: {} for kind in ("stocks", "options", "trade-notes", "notebook", "playbook")}
        for number in range(20):
            for kind in ("stocks", "options"):
                entry = 50 + (seed + number * 7) % 100
                trade = Trade(symbol=f"S{(seed + number) % 40}", side="BUY", quantity=10 + number, entry=entry, exit=entry + (number * 13 + seed) % 21 - 9)
                self.lists[kind][next(serials)] = trade.model_dump()
        for kind in ("trade-notes", "notebook", "playbook"):
            for number in range(5):
                self.lists[kind][next(serials)] = {"text": f"{kind} {number} of {user}"}


journals: dict[str, Journal] = {}


def journal_of(user):
    if user not in journals:
        journals[user] = Journal(user)
    return journals[user]


@app.middleware("http")
async def count(request: Request, call_next):
    path = request.url.path
    if path != "/calls":
        group = "/".join(path.split("/")[:4])
        calls[f"{request.method} {group.rstrip('0123456789')}"] += 1
    return await call_next(request)


app.add_middleware(
    CORSMiddleware,
    allow_origins=["https://app.journal.example"],
    allow_credentials=True,
    allow_methods=["*"],
    allow_headers=["authorization", "content-type"],
    expose_headers=["X-Total-Count"],
)


def who(credentials: HTTPAuthorizationCredentials = Depends(bearer)) -> str:
    try:
        claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"], audience=AUDIENCE, issuer=ISSUER)
    except jwt.InvalidTokenError:
        raise HTTPException(401, "invalid token", {"WWW-Authenticate": "Bearer"})
    return claims["sub"]


@app.get("/calls")
async def counted():
    return calls


@app.post("/login")
async def login(body: Login):
    if body.password != f"password of {body.user}":
        raise HTTPException(401, "wrong password")
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": body.user, "iat": now, "exp": now + LIFETIME, "jti": str(next(serials))}
    return {"token": jwt.encode(claims, SECRET, "HS256")}


@app.post("/user/initialize")
async def initialize(user: str = Depends(who)):
    journal_of(user)
    return {"user": user, "initialized": True}


# ── The lists of a user ──


@app.get("/api/market/quotes")
async def quotes(symbols: str, user: str = Depends(who)):
    await asyncio.sleep(QUERY_SECONDS)
    minute = int(time.time() // 120)
    return {"quotes": {symbol: 100 + (hash(symbol) + minute) % 50 for symbol in symbols.split(",")}}


@app.get("/api/market/movers")
async def movers(user: str = Depends(who)):
    await asyncio.sleep(QUERY_SECONDS)
    return {"gainers": [f"S{number}" for number in range(10)], "losers": [f"S{number}" for number in range(10, 20)]}


@app.get("/api/notebook/holidays")
async def holidays(year: int = 2026, user: str = Depends(who)):
    await asyncio.sleep(QUERY_SECONDS)
    return {"year": year, "holidays": [f"{year}-01-01", f"{year}-07-03", f"{year}-12-25"]}


@app.get("/api/account")
async def account(response: Response, user: str = Depends(who)):
    await asyncio.sleep(QUERY_SECONDS)
    response.headers["Cache-Control"] = "no-store"
    return {"owner": user, "balance": 10_000 + journal_of(user).version}


def kind_of(path):
    return {"trade-notes": "trade-notes", "notes": "notebook"}.get(path, path)


def listed(kind, user, response):
    journal = journal_of(user)
    items = [{"id": id, **item} for id, item in journal.lists[kind].items()]
    response.headers["X-Total-Count"] = str(len(items))
    return {"owner": user, "version": journal.version, "items": items}


@app.get("/api/{kind}/analytics")
@app.get("/api/{kind}/analytics/{figure}")
async def analytics(kind: str, figure: str = "all", range: str = "30d", user: str = Depends(who)):
    if kind not in ("stocks", "options"):
        raise HTTPException(404)
    await asyncio.sleep(QUERY_SECONDS * 2)
    journal = journal_of(user)
    results = [(trade["exit"] - trade["entry"]) * trade["quantity"] for trade in journal.lists[kind].values() if trade["exit"] is not None]
    won, lost = sum(result for result in results if result > 0), -sum(result for result in results if result < 0)
    figures = {"pnl": won - lost, "profit-factor": won / lost if lost else None, "win-rate": sum(result > 0 for result in results) / max(len(results), 1)}
    shown = figures if figure == "all" else {figure: figures[figure]}
    return {"owner": user, "version": journal.version, "range": range, **shown}


@app.get("/api/notebook/notes")
async def notebook(response: Response, user: str = Depends(who)):
    await asyncio.sleep(QUERY_SECONDS)
    return listed("notebook", user, response)


@app.get("/api/{kind}")
async def items(kind: str, response: Response, user: str = Depends(who)):
    if kind not in journal_of(user).lists:
        raise HTTPException(404)
    await asyncio.sleep(QUERY_SECONDS)
    return listed(kind, user, response)


async def store(kind, user, id, value):
    await asyncio.sleep(QUERY_SECONDS)
    journal = journal_of(user)
    if kind not in journal.lists:
        raise HTTPException(404)
    if value is None:
        journal.lists[kind].pop(id, None)
    else:
        journal.lists[kind][id] = value
    journal.version += 1
    return {"owner": user, "id": id, "version": journal.version}


def model(kind):
    return Trade if kind in ("stocks", "options") else Note


@app.post("/api/notebook/notes", status_code=201)
async def add_note(body: Note, user: str = Depends(who)):
    return await store("notebook", user, next(serials), body.model_dump())


@app.post("/api/{kind}", status_code=201)
async def add(kind: str, body: dict, user: str = Depends(who)):
    return await store(kind, user, next(serials), model(kind)(**body).model_dump())


@app.put("/api/{kind}/{id}")
async def change(kind: str, id: int, body: dict, user: str = Depends(who)):
    return await store(kind, user, id, model(kind)(**body).model_dump())


@app.delete("/api/{kind}/{id}")
async def remove(kind: str, id: int, user: str = Depends(who)):
    return await store(kind, user, id, None)
