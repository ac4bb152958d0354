"""Flask: what it makes of a request, route by route."""

from flask import Flask, jsonify, request, session
from werkzeug.middleware.proxy_fix import ProxyFix

from overrides import FORWARDING, overridden

app = Flask(__name__, static_folder=None)
app.secret_key = "secret"
app.wsgi_app = overridden(ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1))


def query():
    return request.args.to_dict(flat=False)


@app.route("/api/<name>", methods=["GET", "DELETE"])
def stocks(name):
    return jsonify(route="deleted" if request.method == "DELETE" else "stocks", name=name)


@app.get("/projects/<id>")
def project(id):
    return jsonify(route="project", id=id)


@app.get("/projects/<id>/<file>")
def file(id, file):
    return jsonify(route="file", id=id, file=file)


@app.get("/static/<path:path>")
def static(path):
    return jsonify(route="static", path=path)


@app.get("/cached/<path:path>")
def cached(path):
    return jsonify(route="cached", path=path, query=query()), {"Cache-Control": "max-age=60"}


@app.get("/links")
def links():
    return jsonify(route="links", link=request.base_url, further={name: request.headers[name] for name in FORWARDING if name in request.headers})


@app.get("/search")
def search():
    return jsonify(route="search", query=query())


@app.get("/only")
def only():
    return jsonify(route="only", query=query())


@app.get("/theme")
def theme():
    return jsonify(route="theme", theme=request.cookies.get("theme"))


@app.get("/cookies")
def cookies():
    return jsonify(route="cookies", cookies=request.cookies), {"Cache-Control": "public, max-age=60", "Vary": "Cookie"}


@app.get("/private")
def private():
    return jsonify(route="private", user=session.get("user")), {"Cache-Control": "private, max-age=60"}


@app.get("/whoami")
def whoami():
    fields = request.headers
    return jsonify(
        route="whoami", authorization=fields.get("Authorization"), key=fields.get("X-API-Key"), token=request.args.get("access_token")
    )


@app.get("/greet")
def greet():
    language = request.accept_languages.best_match(["en", "de", "fr"], "en")
    headers = {"Cache-Control": "max-age=60", "Content-Language": language, "Vary": "Accept-Language"}
    return jsonify(route="greet", language=language), headers


@app.get("/large")
def large():
    return jsonify(route="large", text="large " * 500), {"Cache-Control": "max-age=60"}


@app.get("/account/me")
@app.get("/me")
def me():
    return jsonify(route="me", user=session.get("user")), 200 if "user" in session else 401


@app.get("/login")
def login():
    session["user"] = request.args["user"]
    answer = jsonify(route="login")
    for number in range(int(request.args.get("cookies", "0"))):
        answer.set_cookie(f"_ga_{number}", f"GS1.1.{number}")
    return answer


@app.get("/")
def page():
    return "<!doctype html><title>a page</title>", {"Cache-Control": "no-store"}


@app.errorhandler(404)
def missing(_):
    return jsonify(route="none", path=request.path), 404
