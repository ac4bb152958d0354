//! A blocking HTTP client for the admin listener.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use crate::config::ListenAddress;

/// The time limit for connecting, sending, and each wait for a response.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The size limit of a response, in bytes.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

/// The address of an admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A name or IP address, and a port.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A response of the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminResponse {
    pub status: u16,
    /// The body, with invalid UTF-8 replaced.
    pub body: String,
}

impl AdminAddress {
    /// Returns the default address.
    pub fn default_address() -> Self {
        Self::Tcp("127.0.0.1:9180".to_owned())
    }

    /// Sends a request and reads the whole response, within `wait`.
    ///
    /// The request must contain `Connection: close`.
    pub fn exchange(&self, request: &[u8], wait: Duration) -> io::Result<AdminResponse> {
        match self {
            Self::Tcp(address) => {
                let stream = connect(address)?;
                stream.set_read_timeout(Some(wait))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                send(stream, request)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(wait))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                send(stream, request)
            }
        }
    }

    /// Sends a `GET` request.
    pub fn get(&self, path: &str) -> io::Result<AdminResponse> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host());
        self.exchange(request.as_bytes(), TIMEOUT)
    }

    /// Builds a request for a path with this token.
    ///
    /// # Errors
    /// Fails if the token has invalid characters.
    pub fn request(&self, path: &str, token: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let (host, token) = (self.host(), authorization(token)?);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{token}Connection: close\r\n\r\n");
        Ok(request.into_bytes())
    }

    /// Builds a request that posts JSON to a path with this token.
    ///
    /// # Errors
    /// Fails if the token has invalid characters.
    pub fn post(
        &self,
        (path, accept): (&str, &str),
        token: Option<&str>,
        body: &str,
    ) -> anyhow::Result<Vec<u8>> {
        let token = authorization(token)?;
        Ok(format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{}Accept: {accept}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.host(),
            token,
            body.len(),
        )
        .into_bytes())
    }

    /// Builds a `DELETE` request for a path with this token.
    ///
    /// # Errors
    /// Fails if the token has invalid characters.
    pub fn delete(&self, path: &str, token: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let (host, token) = (self.host(), authorization(token)?);
        let request =
            format!("DELETE {path} HTTP/1.1\r\nHost: {host}\r\n{token}Connection: close\r\n\r\n");
        Ok(request.into_bytes())
    }

    /// Returns the value of `Host`.
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp(address) => address,
            Self::Unix(_) => "localhost",
        }
    }
}

/// Returns the header line with a token; empty without a token.
fn authorization(token: Option<&str>) -> anyhow::Result<String> {
    let is_token = |token: &str| token.bytes().all(|byte| byte.is_ascii_graphic());
    anyhow::ensure!(
        token.is_none_or(is_token),
        "a token has to consist of visible ASCII characters"
    );
    let line = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    Ok(line.unwrap_or_default())
}

impl FromStr for AdminAddress {
    type Err = &'static str;

    /// Parses an address as in `larder run --admin`, or the URL of a listener on another machine.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("https://") {
            return Err("the admin listener uses plain HTTP: write `http://` or only the address");
        }
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if let Ok(address) = text.parse::<ListenAddress>() {
            return Ok(address.into());
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        match text.split_once(':') {
            Some((name, port))
                if !name.is_empty() && name.bytes().all(is_name) && port.parse::<u16>().is_ok() =>
            {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err("expected an address and a port such as `127.0.0.1:9180`, or `unix:/path`"),
        }
    }
}

impl From<ListenAddress> for AdminAddress {
    fn from(address: ListenAddress) -> Self {
        match address {
            ListenAddress::Tcp(address) => Self::Tcp(reachable(address).to_string()),
            ListenAddress::Unix(socket) => Self::Unix(socket.path),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => formatter.write_str(address),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Replaces the unspecified address with loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Connects to the first address of a name that accepts the connection.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn send(mut stream: impl Read + Write, request: &[u8]) -> io::Result<AdminResponse> {
    stream.write_all(request)?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response)?;
    parse_response(&response).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_response(bytes: &[u8]) -> Option<AdminResponse> {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split_ascii_whitespace();
    let status = words.next().filter(|version| version.starts_with("HTTP/1.")).and(words.next())?;
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    Some(AdminResponse { status: status.parse().ok()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_operators_write_them() {
        let read = |text: &str| text.parse::<AdminAddress>().map(|address| address.to_string());
        for (text, expected) in [
            (":9180", "127.0.0.1:9180"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:9180", "10.0.0.1:9180"),
            ("http://larder-admin:9180/", "larder-admin:9180"),
            ("unix:/run/larder.sock", "unix:/run/larder.sock"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "larder", "a:b", "a b:1", "https://a:1", "http://a:1/x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_response_has_a_status_and_a_body() {
        let response = parse_response(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nready\n").unwrap();
        assert_eq!(response, AdminResponse { status: 200, body: "ready\n".to_owned() });
        assert_eq!(parse_response(b"HTTP/1.1 503 No\r\n").unwrap().status, 503);
        for bytes in [&b""[..], b"SSH-2.0\r\n", b"HTTP/1.1 ok\r\n\r\n"] {
            assert_eq!(parse_response(bytes), None);
        }
    }
}
