"""FastAPI: what it makes of a request, route by route."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware

from overrides import FORWARDING

app = FastAPI(openapi_url=None)


class Overridden:
    """An ASGI application that obeys fields which replace the method and the target."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            fields = dict(scope["headers"])
            for name in (b"x-http-method", b"x-http-method-override", b"x-method-override"):
                if name in fields:
                    scope["method"] = fields[name].decode("latin-1").upper()
            for name in (b"x-original-url", b"x-rewrite-url"):
                if fields.get(name, b"").startswith(b"/"):
                    scope["path"] = fields[name].decode("latin-1")
        await self.app(scope, receive, send)


app.add_middleware(SessionMiddleware, secret_key="secret")
app.add_middleware(GZipMiddleware)
app.add_middleware(Overridden)


def query(request: Request):
    return {name: request.query_params.getlist(name) for name in request.query_params}


@app.get("/api/{name}")
def stocks(name: str):
    return {"route": "stocks", "name": name}


@app.delete("/api/{name}")
def delete(name: str):
    return {"route": "deleted", "name": name}


@app.get("/projects/{id}")
def project(id: str):
    return {"route": "project", "id": id}


@app.get("/projects/{id}/{file}")
def file(id: str, file: str):
    return {"route": "file", "id": id, "file": file}


@app.get("/static/{path:path}")
def static(path: str):
    return {"route": "static", "path": path}


@app.get("/cached/{path:path}")
def cached(path: str, request: Request):
    return JSONResponse({"route": "cached", "path": path, "query": query(request)}, headers={"Cache-Control": "max-age=60"})


@app.get("/links")
def links(request: Request):
    further = {name: request.headers[name] for name in FORWARDING if name in request.headers}
    return {"route": "links", "link": str(request.url_for("links")), "further": further}


@app.get("/search")
@app.get("/only")
def search(request: Request):
    return {"route": "search", "query": query(request)}


@app.get("/theme")
def theme(request: Request):
    return {"route": "theme", "theme": request.cookies.get("theme")}


@app.get("/cookies")
def cookies(request: Request):
    return JSONResponse({"route": "cookies", "cookies": request.cookies}, headers={"Cache-Control": "public, max-age=60", "Vary": "Cookie"})


@app.get("/private")
def private(request: Request):
    return JSONResponse({"route": "private", "user": request.session.get("user")}, headers={"Cache-Control": "private, max-age=60"})


@app.get("/whoami")
def whoami(request: Request, access_token: str | None = None):
    fields = request.headers
    return {"route": "whoami", "authorization": fields.get("Authorization"), "key": fields.get("X-API-Key"), "token": access_token}


@app.get("/greet")
def greet(request: Request):
    """Starlette has no negotiation; this is what people write."""
    language = next((known for known in ("de", "fr") if request.headers.get("Accept-Language", "").startswith(known)), "en")
    headers = {"Cache-Control": "max-age=60", "Content-Language": language, "Vary": "Accept-Language"}
    return JSONResponse({"route": "greet", "language": language}, headers=headers)


@app.get("/large")
def large():
    return JSONResponse({"route": "large", "text": "large " * 500}, headers={"Cache-Control": "max-age=60"})


@app.get("/account/me")
@app.get("/me")
def me(request: Request):
    user = request.session.get("user")
    return JSONResponse({"route": "me", "user": user}, status_code=200 if user else 401)


@app.get("/login")
def login(user: str, request: Request):
    request.session["user"] = user
    return {"route": "login"}


@app.exception_handler(HTTPException)
def missing(request: Request, error: HTTPException):
    return JSONResponse({"route": "none", "path": request.url.path}, status_code=error.status_code)
