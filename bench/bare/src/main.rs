//! A bare hyper server: it answers every request with the bytes and the number of fields of a hit
//! from Larder, and does nothing else. What Larder's own work costs is the distance from this.
//!
//! Usage: `bare ADDRESS`. `GET /hit/1k` gets 1 KiB, any other target 100 KiB.

use std::convert::Infallible;
use std::error::Error;

use bare::FIELDS;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
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
        let body = if is_small { self.small.clone() } else { self.large.clone() };
        let mut response = Response::new(Full::new(body));
        *response.headers_mut() = self.fields.clone();
        response
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: bare ADDRESS")?;
    let listener = TcpListener::bind(address).await?;
    let answers: &'static Answers = Box::leak(Box::new(Answers::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, answers));
    }
}

/// Answers one connection until its client leaves; what goes wrong on it concerns no one else.
async fn serve(stream: TcpStream, answers: &'static Answers) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answers.answer(&request)));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
