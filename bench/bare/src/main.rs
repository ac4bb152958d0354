//! A bare hyper server: it answers every request with the bytes and the number of fields of a hit
//! from Larder, and does nothing else. What Larder's own work costs is the distance from this.
//!
//! Usage: `bare ADDRESS [ORIGIN]`. `GET /hit/1k` gets 1 KiB, or a `304` if it has `If-None-Match`.
//! Any other target gets 100 KiB, except `/pass/…`: hyper's client sends these requests to the
//! origin unchanged over a kept connection, and the response goes back unchanged.

use std::error::Error;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bare::FIELDS;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The two answers, made once.
struct Answers {
    fields: HeaderMap,
    small: Bytes,
    large: Bytes,
}

impl Answers {
    fn new() -> Self {
        let fields = FIELDS
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Self {
            fields,
            small: Bytes::from(vec![b'x'; 1024]),
            large: Bytes::from(vec![b'x'; 100 * 1024]),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let is_small = request.uri().path() == "/hit/1k";
        let is_not_modified = is_small && request.headers().contains_key(IF_NONE_MATCH);
        let body = if is_not_modified {
            Bytes::new()
        } else if is_small {
            self.small.clone()
        } else {
            self.large.clone()
        };
        let mut response = Response::new(Full::new(body));
        if is_not_modified {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        *response.headers_mut() = self.fields.clone();
        response
    }
}

/// The origin, and the connections to it that are idle.
struct Origin {
    address: String,
    idle: Mutex<Vec<SendRequest<Incoming>>>,
}

impl Origin {
    async fn pass(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let (head, body) =
            connection.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        self.idle().push(connection);
        Ok(Response::from_parts(head, Full::new(body)))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SendRequest<Incoming>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> io::Result<SendRequest<Incoming>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(driver);
        Ok(connection)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: bare ADDRESS [ORIGIN]")?;
    let origin = Origin { address: arguments.next().unwrap_or_default(), idle: Mutex::default() };
    let listener = TcpListener::bind(address).await?;
    let answers: &'static Answers = Box::leak(Box::new(Answers::new()));
    let origin: &'static Origin = Box::leak(Box::new(origin));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, answers, origin));
    }
}

/// Answers one connection until its client leaves; what goes wrong on it concerns no one else.
async fn serve(stream: TcpStream, answers: &'static Answers, origin: &'static Origin) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        if request.uri().path().starts_with("/pass/") {
            return origin.pass(request).await;
        }
        Ok::<_, io::Error>(answers.answer(&request))
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
