"""An API behind the two middlewares that most FastAPI applications have: GZip and CORS for one page."""

import os

from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware

app = FastAPI()
app.add_middleware(GZipMiddleware, minimum_size=500)
app.add_middleware(CORSMiddleware, allow_origins=[os.environ["PAGE"]], allow_credentials=True)
asked = {}


@app.get("/api/ready")
def ready():
    return {"ready": True}


@app.get("/asked/{name}")
def how_often(name: str):
    return {"times": asked.get(name, 0)}


@app.get("/data/{name}")
def data(name: str, response: Response):
    asked[name] = asked.get(name, 0) + 1
    response.headers["cache-control"] = "max-age=600"
    return {"name": name, "rows": list(range(500))}
