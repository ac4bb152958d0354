"""FastAPI behind a login by JWT: the list of each user, and quotes for all who are logged in."""

import time

import jwt
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

SECRET = "the-secret-of-the-examples-32-bytes"
CLAIMS = {"iss": "https://login.example", "aud": "api"}
app = FastAPI(openapi_url=None)
orders: dict[str, list[str]] = {}


def user(credentials: HTTPAuthorizationCredentials = Depends(HTTPBearer())) -> str:
    try:
        return jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"], issuer=CLAIMS["iss"], audience=CLAIMS["aud"])["sub"]
    except jwt.InvalidTokenError:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})


@app.get("/ready")
def ready():
    return {}


@app.post("/login")
def login(name: str, seconds: int = 600):
    return {"token": jwt.encode({**CLAIMS, "sub": name, "exp": int(time.time()) + seconds}, SECRET, "HS256")}


@app.get("/api/orders")
def list_orders(response: Response, name: str = Depends(user)):
    response.headers["X-Total-Count"] = str(len(orders.get(name, [])))
    return {"user": name, "orders": orders.get(name, [])}


@app.post("/api/orders", status_code=201)
def order(name: str = Depends(user)):
    orders.setdefault(name, []).append("an order")
    return {"user": name}


@app.get("/api/quotes")
def quotes(name: str = Depends(user)):
    return {"quotes": {"ACME": 42}}
