//! Opens connections to one server.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    error::OriginError,
    resolve::DnsResolver,
    settings::{OriginScheme, ServerAddress, ServerUrl, Settings},
    tls::{ClientConfigs, OriginTlsError},
};
use crate::server::{
    stream::{Protocol, Stream, Transport},
    tls_socket::TlsSocket,
};

/// Time after which the next address is tried in parallel (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The address of a server, and the settings for connecting to it.
pub(super) struct ServerConnector {
    destination: Destination,
    scheme: OriginScheme,
    /// The server's URL.
    pub(super) name: Arc<str>,
    pub(super) timeout: Duration,
    tls: Option<TlsConnectors>,
}

enum Destination {
    Tcp(Arc<DnsResolver>),
    Unix(std::path::PathBuf),
}

struct TlsConnectors {
    /// The connector that offers every configured protocol by ALPN.
    any: TlsConnector,
    http1: TlsConnector,
    name: ServerName<'static>,
}

/// The protocols offered for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AlpnOffer {
    /// Any protocol that the settings allow.
    Any,
    /// HTTP/1.1 only, for requests that upgrade the connection.
    Http1,
}

impl ServerConnector {
    pub(super) fn new(
        endpoint: &ServerUrl,
        settings: &Settings,
        tls: Option<&ClientConfigs>,
    ) -> Result<Self, OriginTlsError> {
        let tls = match tls {
            Some(configs) if endpoint.scheme == OriginScheme::Https => {
                Some(TlsConnectors::new(configs, endpoint, settings)?)
            }
            _ => None,
        };
        let destination = match &endpoint.address {
            ServerAddress::Tcp(host, port) => {
                Destination::Tcp(DnsResolver::new(host, *port, settings.dns_refresh))
            }
            ServerAddress::Unix(path) => Destination::Unix(path.clone()),
        };
        let name = endpoint.to_string().into();
        Ok(Self {
            destination,
            scheme: endpoint.scheme,
            name,
            timeout: settings.connect_timeout,
            tls,
        })
    }

    /// Opens a connection and returns it with its protocol. The caller applies the timeout.
    pub(super) async fn connect(
        &self,
        offer: AlpnOffer,
    ) -> Result<(Stream, Protocol), OriginError> {
        let connect =
            |source| OriginError::Connect { server: self.name.clone(), source: Arc::new(source) };
        let stream = match &self.destination {
            Destination::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(connect)?;
                return Ok((Stream::from(Transport::Unix(stream)), Protocol::Http1));
            }
            Destination::Tcp(resolver) => happy_eyeballs(resolver).await.map_err(connect)?,
        };
        let Some(tls) = &self.tls else {
            let is_http2 = self.scheme == OriginScheme::H2c;
            let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
            return Ok((Stream::from(Transport::Tcp(stream)), protocol));
        };
        let connected =
            tls.connector(offer).connect(tls.name.clone(), TlsSocket::new(stream)).await;
        let stream = connected.map_err(|source| OriginError::Tls {
            server: self.name.clone(),
            source: Arc::new(source),
        })?;
        let stream = Stream::from(Transport::Tls(Box::new(TlsStream::Client(stream))));
        let protocol = stream.agreed_protocol();
        Ok((stream, protocol))
    }
}

impl TlsConnectors {
    fn new(
        configs: &ClientConfigs,
        endpoint: &ServerUrl,
        settings: &Settings,
    ) -> Result<Self, OriginTlsError> {
        let connector = |config: &Arc<ClientConfig>| TlsConnector::from(Arc::clone(config));
        let any = if settings.http2 { &configs.any } else { &configs.http1 };
        Ok(Self {
            any: connector(any),
            http1: connector(&configs.http1),
            name: server_name(endpoint, settings)?,
        })
    }

    fn connector(&self, offer: AlpnOffer) -> &TlsConnector {
        match offer {
            AlpnOffer::Any => &self.any,
            AlpnOffer::Http1 => &self.http1,
        }
    }
}

/// Tries the addresses in turn, and returns the first connection. Each address gets a head start
/// before the next address is tried in parallel.
async fn happy_eyeballs(resolver: &Arc<DnsResolver>) -> io::Result<TcpStream> {
    let mut remaining = resolver.addresses().await?.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        let next = remaining.next();
        let is_last = next.is_none();
        attempts.extend(next.map(|address| attempt(resolver, address)));
        let head_start = async {
            if is_last {
                std::future::pending::<()>().await;
            }
            sleep(ATTEMPT_DELAY).await;
        };
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => failure = error,
                None => return Err(failure),
            },
            () = head_start => {}
        }
    }
}

/// Connects to one address.
async fn attempt(resolver: &DnsResolver, address: SocketAddr) -> io::Result<TcpStream> {
    let mut attempt = Attempt { resolver, address, since: Instant::now(), has_ended: false };
    let connected = TcpStream::connect(address).await;
    attempt.has_ended = true;
    match &connected {
        Ok(stream) => {
            resolver.note_reached(address);
            stream.set_nodelay(true)?;
        }
        Err(_) => resolver.note_failed(address),
    }
    connected
}

/// An attempt to connect. If it is dropped after its head start, the address counts as failed.
struct Attempt<'a> {
    resolver: &'a DnsResolver,
    address: SocketAddr,
    since: Instant,
    has_ended: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.has_ended && self.since.elapsed() >= ATTEMPT_DELAY {
            self.resolver.note_failed(self.address);
        }
    }
}

/// Runs `connecting`. Fails with `ConnectTimeout` if it takes longer than `limit`.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    server: &Arc<str>,
    connecting: impl Future<Output = Result<T, OriginError>>,
) -> Result<T, OriginError> {
    let connected = timeout(limit, connecting).await;
    connected.map_err(|_| OriginError::ConnectTimeout { server: Arc::clone(server) })?
}

fn server_name(
    endpoint: &ServerUrl,
    settings: &Settings,
) -> Result<ServerName<'static>, OriginTlsError> {
    let name = match (&settings.tls.server_name, &endpoint.address) {
        (Some(name), _) => name.clone(),
        (None, ServerAddress::Tcp(host, _)) => host.clone(),
        (None, ServerAddress::Unix(_)) => "localhost".to_owned(),
    };
    ServerName::try_from(name.clone()).map_err(|source| OriginTlsError::Name { name, source })
}
