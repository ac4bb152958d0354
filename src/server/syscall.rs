//! `send`, `recv` and `sendfile` on TCP sockets without libc's support for thread cancellation. That
//! support costs a process with several threads two locked operations per call.

use std::{
    cell::RefCell,
    io,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::TcpStream,
};

use crate::body_file::BodyFile;

/// Size of the receive buffer for heads, in bytes. Heads are copied from it once.
pub(super) const HEAD_BYTES: usize = 8 * 1024;

thread_local! {
    static HEAD_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; HEAD_BYTES]);
}

/// Sends as many bytes as the socket accepts, and returns their number.
pub(super) fn poll_send(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    poll_until_sent(stream, cx, || send(stream, bytes, SendFlags::NOSIGNAL))
}

/// Sends as many bytes of the rest of a body as the socket accepts, and returns their number. The
/// file ends with the same bytes, which the kernel does not copy.
///
/// Sends from memory if the system does not send the file.
pub(super) fn poll_send_file(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    rest: &[u8],
    file: &BodyFile,
) -> Poll<io::Result<usize>> {
    poll_until_sent(stream, cx, || {
        send_from_file(stream, rest, file).or_else(|error| match error {
            Errno::AGAIN => Err(error),
            _ => send(stream, rest, SendFlags::NOSIGNAL),
        })
    })
}

#[cfg(target_os = "linux")]
fn send_from_file(stream: &TcpStream, rest: &[u8], file: &BodyFile) -> Result<usize, Errno> {
    let mut offset = file.length().saturating_sub(rest.len()) as u64;
    rustix::fs::sendfile(stream, file, Some(&mut offset), rest.len())
}

#[cfg(not(target_os = "linux"))]
fn send_from_file(_: &TcpStream, _: &[u8], _: &BodyFile) -> Result<usize, Errno> {
    Err(Errno::OPNOTSUPP)
}

fn poll_until_sent(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    send: impl Fn() -> Result<usize, Errno>,
) -> Poll<io::Result<usize>> {
    loop {
        match stream.try_io(Interest::WRITABLE, || Ok(send()?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
        ready!(stream.poll_write_ready(cx))?;
    }
}

/// Returns whether the socket is open and has no data, according to the last readiness event. Reads
/// no data.
pub(super) fn is_idle(stream: &TcpStream) -> bool {
    let peek = || {
        let mut byte = [0];
        Ok(recv(stream, &mut byte, RecvFlags::PEEK).map(drop)?)
    };
    let peeked: io::Result<()> = stream.try_io(Interest::READABLE, peek);
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Returns whether the socket is open and has no data. Always makes a system call, so it also
/// detects a close that has not been reported yet.
pub(super) fn is_open_and_empty(socket: impl AsFd) -> bool {
    peek(socket).is_err_and(|error| error == Errno::AGAIN || error == Errno::WOULDBLOCK)
}

/// Returns whether the socket has data. Always makes a system call.
pub(super) fn has_data(socket: impl AsFd) -> bool {
    peek(socket).is_ok_and(|length| length > 0)
}

fn peek(socket: impl AsFd) -> rustix::io::Result<usize> {
    let mut byte = [0];
    recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT).map(|(length, _)| length)
}

/// Receives up to `room` bytes, but not more than [`HEAD_BYTES`], and passes them to `take`.
/// Returns their number.
///
/// A short read means that the socket is empty. Like tokio, the function then clears the readiness,
/// to save a call that would return `WouldBlock`.
pub(super) fn poll_receive(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    room: usize,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    HEAD_BUFFER.with_borrow_mut(|head| {
        let room = room.min(head.len());
        let head = head.get_mut(..room).unwrap_or_default();
        loop {
            let mut received = None;
            let attempt = stream.try_io(Interest::READABLE, || {
                let (length, _) = recv(stream, &mut *head, RecvFlags::empty())?;
                received = Some(length);
                if length < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (received, attempt) {
                (Some(length), _) => {
                    take(head.get(..length).unwrap_or_default());
                    return Poll::Ready(Ok(length));
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => ready!(stream.poll_read_ready(cx))?,
            }
        }
    })
}

/// Reads up to `room` bytes from any stream, at most [`HEAD_BYTES`], and passes them to `take`.
/// Returns their number.
pub(super) fn poll_read_head(
    stream: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
    room: usize,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    HEAD_BUFFER.with_borrow_mut(|head| {
        let room = room.min(head.len());
        let mut buf = ReadBuf::new(head.get_mut(..room).unwrap_or_default());
        ready!(stream.poll_read(cx, &mut buf))?;
        take(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_body_is_sent_from_memory_if_its_file_cannot_be_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (sender, mut client) = (sender.unwrap(), accepted.unwrap().0);
        let null = std::fs::File::create("/dev/null").unwrap();
        let file = BodyFile::from_file(null.into(), 9);
        let sent = poll_fn(|cx| poll_send_file(&sender, cx, b"the rest", &file)).await;
        assert_eq!(sent.unwrap(), 8);
        drop(sender);
        let mut received = String::new();
        client.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "the rest");
    }
}
