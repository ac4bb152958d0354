//! Raw client and origin connections.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection on which tests read and write bytes.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    read: Vec<u8>,
}

/// A received response: its head, and its body without chunked coding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Returns the values of all fields with this name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        headers(&self.head, name).collect()
    }

    /// Returns the value of `X-API-Cache`.
    pub(crate) fn cache(&self) -> &str {
        self.header("x-api-cache").unwrap_or("-")
    }

    /// Returns the status, the cache result and the body, which most tests compare.
    pub(crate) fn summary(&self) -> String {
        format!("{} {} {}", self.status(), self.cache(), self.body)
    }
}

/// Returns the value of the first field with this name in a raw head.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    headers(head, name).next()
}

/// Returns the values of all fields with this name in a raw head.
pub(crate) fn headers<'h>(head: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    head.lines().skip(1).filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl Wire {
    pub(crate) fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { io: Box::new(io), read: Vec::new() }
    }

    /// Returns the underlying connection. Nothing must have been buffered.
    pub(crate) fn into_io(self) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        assert!(self.read.is_empty(), "bytes were read ahead");
        self.io
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream)
    }

    /// Connects, or returns `None` if no server listens.
    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self::new(stream))
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Writes bytes. Returns false if the peer is gone.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.io.write_all(bytes.as_ref()).await.is_ok() && self.io.flush().await.is_ok()
    }

    /// Closes the sending side.
    pub(crate) async fn finish(&mut self) {
        self.io.shutdown().await.unwrap();
    }

    /// Reads up to and including the delimiter.
    pub(crate) async fn read_until(&mut self, delimiter: &str) -> String {
        loop {
            let found =
                self.read.windows(delimiter.len()).position(|part| part == delimiter.as_bytes());
            if let Some(start) = found {
                let part = self.read.drain(..start + delimiter.len()).collect();
                return String::from_utf8(part).unwrap();
            }
            let read = self.io.read_buf(&mut self.read).await.unwrap();
            assert!(read > 0, "ended after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads a head. `None` if the peer ends first.
    pub(crate) async fn try_read_head(&mut self) -> Option<String> {
        self.try_read_until(b"\r\n\r\n").await
    }

    /// Reads the body that belongs to a request head. `None` if the peer ends first.
    pub(crate) async fn try_read_body(&mut self, head: &str) -> Option<String> {
        if header(head, "transfer-encoding").is_some() {
            self.try_read_chunks().await
        } else if let Some(length) = header(head, "content-length") {
            self.try_read_exact(length.parse().ok()?).await
        } else {
            Some(String::new())
        }
    }

    async fn try_read_chunks(&mut self) -> Option<String> {
        let mut body = String::new();
        loop {
            let line = self.try_read_until(b"\r\n").await?;
            let size = usize::from_str_radix(line.trim().split(';').next()?, 16).ok()?;
            if size == 0 {
                break;
            }
            body.push_str(&self.try_read_exact(size).await?);
            self.try_read_exact(2).await?;
        }
        while self.try_read_until(b"\r\n").await? != "\r\n" {}
        Some(body)
    }

    /// Reads up to and including the delimiter. `None` if the peer ends first.
    pub(crate) async fn try_read_until(&mut self, delimiter: &[u8]) -> Option<String> {
        loop {
            let found = self.read.windows(delimiter.len()).position(|part| part == delimiter);
            if let Some(start) = found {
                return self.try_read_exact(start + delimiter.len()).await;
            }
            self.read_more().await?;
        }
    }

    async fn try_read_exact(&mut self, bytes: usize) -> Option<String> {
        let part = self.try_read_exact_bytes(bytes).await?;
        Some(String::from_utf8_lossy(&part).into_owned())
    }

    /// Reads this many bytes. `None` if the peer ends first.
    pub(crate) async fn try_read_exact_bytes(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.read.len() < bytes {
            self.read_more().await?;
        }
        Some(self.read.drain(..bytes).collect())
    }

    async fn read_more(&mut self) -> Option<()> {
        matches!(self.io.read_buf(&mut self.read).await, Ok(1..)).then_some(())
    }

    pub(crate) async fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    pub(crate) async fn read_exact(&mut self, bytes: usize) -> String {
        String::from_utf8(self.read_exact_bytes(bytes).await).unwrap()
    }

    /// Reads this many bytes, which need not be text.
    pub(crate) async fn read_exact_bytes(&mut self, bytes: usize) -> Vec<u8> {
        while self.read.len() < bytes {
            assert!(self.io.read_buf(&mut self.read).await.unwrap() > 0, "ended early");
        }
        self.read.drain(..bytes).collect()
    }

    /// Reads a response, with its body by length, chunks, or the end of the connection.
    pub(crate) async fn read_reply(&mut self) -> Reply {
        self.read_reply_to("GET").await
    }

    /// Reads the response to a request with this method.
    pub(crate) async fn read_reply_to(&mut self, method: &str) -> Reply {
        let head = self.read_head().await;
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            String::new()
        } else if header(&head, "transfer-encoding").is_some() {
            self.read_chunks().await.0
        } else if let Some(length) = header(&head, "content-length") {
            self.read_exact(length.parse().unwrap()).await
        } else {
            self.read_to_end().await
        };
        Reply { head, body }
    }

    /// Reads a chunked body and its trailers.
    pub(crate) async fn read_chunks(&mut self) -> (String, String) {
        let mut body = String::new();
        loop {
            let line = self.read_until("\r\n").await;
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            body.push_str(&self.read_exact(size).await);
            assert_eq!(self.read_exact(2).await, "\r\n");
        }
        let mut trailers = String::new();
        loop {
            let line = self.read_until("\r\n").await;
            if line == "\r\n" {
                return (body, trailers);
            }
            trailers.push_str(&line);
        }
    }

    /// Reads until the peer ends. A reset counts as an end.
    pub(crate) async fn read_to_end(&mut self) -> String {
        String::from_utf8(self.read_to_end_bytes().await).unwrap()
    }

    /// Reads bytes, which need not be text, until the peer ends.
    pub(crate) async fn read_to_end_bytes(&mut self) -> Vec<u8> {
        while let Ok(1..) = self.io.read_buf(&mut self.read).await {}
        std::mem::take(&mut self.read)
    }

    pub(crate) async fn exchange(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.write(request).await;
        self.read_reply().await
    }

    /// Sends a request without a body and reads the response. `None` if the peer ends first.
    ///
    /// The response needs a length or chunks.
    pub(crate) async fn try_exchange(&mut self, request: impl AsRef<[u8]>) -> Option<Reply> {
        if !self.try_write(request).await {
            return None;
        }
        let head = self.try_read_head().await?;
        let body = self.try_read_body(&head).await?;
        Some(Reply { head, body })
    }
}

/// An origin that runs the test's code on each connection.
pub(crate) struct RawOrigin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl RawOrigin {
    /// Starts an origin. `script` receives each connection with its number, from 0.
    pub(crate) async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Wire, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            // Dropping the origin ends its connections.
            let mut conversations = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = counter.fetch_add(1, Ordering::SeqCst);
                conversations.spawn(script(Wire::new(stream), number));
            }
        });
        Self { address, connections, task }
    }

    /// Starts an origin that responds with 200 and the request's head as the body.
    pub(crate) async fn mirror() -> Self {
        Self::start(|mut wire, _| async move {
            loop {
                let head = wire.read_head().await;
                let reply =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                wire.write(reply).await;
            }
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}
