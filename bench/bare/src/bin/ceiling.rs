//! The ceiling for a server on tokio: it reads a request and writes prepared bytes, those of a hit
//! from Larder. It parses nothing but the end of the request and its target.
//!
//! Usage: `ceiling ADDRESS [ORIGIN [COUNT]]`. `GET /hit/1k` gets 1 KiB, or a `304` if it has
//! `If-None-Match`. `/items/1` to `/items/COUNT` get 1 KiB from a hash map that has a copy for each
//! of them. Any other target gets 100 KiB, except `/pass/…`: these requests go to the origin
//! unchanged over a kept connection, and its response of 1 KiB goes back unchanged.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io;

use bare::FIELDS;
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The responses, head and body in one piece.
struct Responses {
    small: Vec<u8>,
    large: Vec<u8>,
    not_modified: Vec<u8>,
    /// By target.
    stored: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl Responses {
    fn new(count: usize) -> Result<Self, std::fmt::Error> {
        let small = response("200 OK", 1024)?;
        let stored = (1..=count)
            .map(|number| (format!("/items/{number}").into_bytes().into(), small.clone().into()))
            .collect();
        Ok(Self {
            large: response("200 OK", 100 * 1024)?,
            not_modified: response("304 Not Modified", 0)?,
            small,
            stored,
        })
    }

    /// The response to a complete `GET`.
    fn find(&self, request: &[u8]) -> &[u8] {
        if !self.stored.is_empty() {
            let target = &request["GET ".len()..];
            let length = memchr::memchr(b' ', target).unwrap_or(target.len());
            if let Some(stored) = self.stored.get(&target[..length]) {
                return stored;
            }
        }
        if !request.starts_with(b"GET /hit/1k ") {
            &self.large
        } else if memmem::find(request, b"\r\nIf-None-Match:").is_some() {
            &self.not_modified
        } else {
            &self.small
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: ceiling ADDRESS [ORIGIN [COUNT]]")?;
    let origin: &'static str = Box::leak(arguments.next().unwrap_or_default().into());
    let count = arguments.next().map_or(Ok(0), |count| count.parse())?;
    let listener = std::net::TcpListener::bind(address)?;
    let responses: &'static Responses = Box::leak(Box::new(Responses::new(count)?));
    // One thread for each core that it may use, as Larder has. They get connections in turn.
    let mut threads: Vec<_> = (0..std::thread::available_parallelism()?.get())
        .map(|_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            std::thread::spawn(move || serve_all(receiver, responses, origin));
            sender
        })
        .collect();
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        threads[0].send(stream)?;
        threads.rotate_left(1);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve_all(
    mut streams: mpsc::UnboundedReceiver<std::net::TcpStream>,
    responses: &'static Responses,
    origin: &'static str,
) -> io::Result<()> {
    while let Some(stream) = streams.recv().await {
        tokio::spawn(serve(TcpStream::from_std(stream)?, responses, origin));
    }
    Ok(())
}

/// Encodes a response with the fields of a hit, and with a body of this length. A response without a
/// body has no `Content-Length`.
fn response(status: &str, length: usize) -> Result<Vec<u8>, std::fmt::Error> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in FIELDS {
        write!(head, "{name}: {value}\r\n")?;
    }
    if length > 0 {
        write!(head, "content-length: {length}\r\n")?;
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    Ok(bytes)
}

/// Responds to the requests of one connection, each of which has to arrive alone.
async fn serve(mut stream: TcpStream, responses: &'static Responses, origin: &'static str) {
    let mut buffer = vec![0; 8 * 1024];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
        filled += read;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let length = std::mem::take(&mut filled);
        let written = if buffer.starts_with(b"GET /pass/") {
            match exchange(origin, &mut buffer, length).await {
                Ok(length) => stream.write_all(&buffer[..length]).await,
                Err(error) => Err(error),
            }
        } else {
            stream.write_all(responses.find(&buffer[..length])).await
        };
        if written.is_err() {
            return;
        }
    }
}

thread_local! {
    static IDLE: RefCell<Vec<TcpStream>> = const { RefCell::new(Vec::new()) };
}

/// Sends the first `length` bytes of the buffer to the origin, and reads its response into the
/// buffer. Returns the length of the response.
async fn exchange(origin: &str, buffer: &mut [u8], length: usize) -> io::Result<usize> {
    let idle = IDLE.with_borrow_mut(Vec::pop);
    let mut connection = match idle {
        Some(connection) => connection,
        None => {
            let connection = TcpStream::connect(origin).await?;
            connection.set_nodelay(true)?;
            connection
        }
    };
    connection.write_all(&buffer[..length]).await?;
    let (mut filled, mut expected) = (0, usize::MAX);
    while filled < expected {
        match connection.read(&mut buffer[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        if let Some(end) = buffer[..filled].windows(4).position(|end| end == b"\r\n\r\n") {
            expected = end + 4 + 1024;
        }
    }
    IDLE.with_borrow_mut(|idle| idle.push(connection));
    Ok(filled)
}
