//! Listen addresses: TCP or Unix sockets.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// A listen address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and port; port 0 is any free port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixSocket),
}

/// The file of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixSocket {
    /// Path of the socket.
    pub path: PathBuf,
    /// Permissions of the socket; `None` for the default.
    pub mode: Option<u32>,
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        listen_address(text)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(UnixSocket { path, mode: None }) => {
                write!(formatter, "unix:{}", path.display())
            }
            Self::Unix(UnixSocket { path, mode: Some(mode) }) => {
                write!(formatter, "unix:{}?mode={mode:04o}", path.display())
            }
        }
    }
}

/// Parses `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `:8080` (every IPv4 address) or
/// `unix:/path`.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, &'static str> {
    const PROBLEM: &str = "expected an IP address and port such as `0.0.0.0:8080`, or `unix:/path`";
    if let Some(socket) = text.strip_prefix("unix:") {
        return unix_socket(socket).map(ListenAddress::Unix);
    }
    let address = match text.split_once(':') {
        Some(("", port)) => format!("0.0.0.0:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => text.to_owned(),
    };
    address.parse::<SocketAddr>().map(ListenAddress::Tcp).map_err(|_| PROBLEM)
}

/// Parses the path of a socket with optional permissions: `/path?mode=0660`.
fn unix_socket(text: &str) -> Result<UnixSocket, &'static str> {
    let (path, mode) = match text.split_once("?mode=") {
        Some((path, mode)) => (path, Some(permissions(mode)?)),
        None => (text, None),
    };
    if path.starts_with('/') {
        Ok(UnixSocket { path: path.into(), mode })
    } else {
        Err("expected an absolute path such as `unix:/run/larder.sock`")
    }
}

fn permissions(text: &str) -> Result<u32, &'static str> {
    const EXPECTED: &str = "expected permissions in octal digits such as `?mode=0660`";
    let is_octal = text.len() >= 3 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).map_err(|_| EXPECTED)?;
    if is_octal && mode <= 0o777 { Ok(mode) } else { Err(EXPECTED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
        assert_eq!(listen_address(":8080"), Ok(tcp("0.0.0.0:8080")));
        assert_eq!(listen_address("localhost:0"), Ok(tcp("127.0.0.1:0")));
        assert_eq!(listen_address("[::1]:80"), Ok(tcp("[::1]:80")));
        let unix = |path: &str, mode| ListenAddress::Unix(UnixSocket { path: path.into(), mode });
        assert_eq!(listen_address("unix:/run/larder.sock"), Ok(unix("/run/larder.sock", None)));
        assert_eq!(listen_address("unix:/a?mode=0660"), Ok(unix("/a", Some(0o660))));
        assert_eq!(unix("/a", Some(0o600)).to_string(), "unix:/a?mode=0600");
        for text in ["unix:/a?mode=", "unix:/a?mode=888", "unix:/a?mode=rw", "unix:/a?mode=1777"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
        for text in ["8080", "example.com:80", "0.0.0.0", "unix:larder.sock", "1.2.3.4:99999"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }
}
