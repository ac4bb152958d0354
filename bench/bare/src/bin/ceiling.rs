//! The ceiling for a server on tokio: it reads a request and writes prepared bytes, those of a hit
//! from Larder. It parses nothing but the end of the request and its target.
//!
//! Usage: `ceiling ADDRESS`. `GET /hit/1k` gets 1 KiB, any other target 100 KiB.

use std::error::Error;
use std::fmt::Write as _;

use bare::FIELDS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Both responses, head and body in one piece.
struct Responses {
    small: Vec<u8>,
    large: Vec<u8>,
}

// One thread, as one worker of Larder.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: ceiling ADDRESS")?;
    let listener = TcpListener::bind(address).await?;
    let responses = Responses { small: response(1024)?, large: response(100 * 1024)? };
    let responses: &'static Responses = Box::leak(Box::new(responses));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, responses));
    }
}

fn response(length: usize) -> Result<Vec<u8>, std::fmt::Error> {
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    for (name, value) in FIELDS {
        write!(head, "{name}: {value}\r\n")?;
    }
    write!(head, "content-length: {length}\r\n\r\n")?;
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    Ok(bytes)
}

/// Responds to the requests of one connection, each of which has to arrive alone.
async fn serve(mut stream: TcpStream, responses: &'static Responses) {
    let mut buffer = vec![0; 8 * 1024];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
        filled += read;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let is_small = buffer.starts_with(b"GET /hit/1k ");
        filled = 0;
        let bytes = if is_small { &responses.small } else { &responses.large };
        if stream.write_all(bytes).await.is_err() {
            return;
        }
    }
}
