//! Opens connections to one server.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    error::OriginError,
    settings::{Endpoint, Place, Scheme, Settings},
    tls::TlsError,
};
use crate::server::stream::{Protocol, Stream, Transport};

/// Knows where a server is and how to speak to it.
pub(super) struct Connector {
    endpoint: Endpoint,
    name: Arc<str>,
    timeout: Duration,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    pub(super) fn new(
        endpoint: &Endpoint,
        settings: &Settings,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, TlsError> {
        let tls = match tls {
            Some(config) if endpoint.scheme == Scheme::Https => {
                let name = server_name(endpoint, settings)?;
                Some((TlsConnector::from(Arc::clone(config)), name))
            }
            _ => None,
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            name: endpoint.to_string().into(),
            timeout: settings.connect_timeout,
            tls,
        })
    }

    /// The server's URL.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// A new connection and the protocol it speaks.
    pub(super) async fn connect(&self) -> Result<(Stream, Protocol), OriginError> {
        let connected = timeout(self.timeout, self.reach()).await;
        connected.map_err(|_| OriginError::ConnectTimeout { server: self.name() })?
    }

    async fn reach(&self) -> Result<(Stream, Protocol), OriginError> {
        let connect = |source| OriginError::Connect { server: self.name(), source };
        let stream = match &self.endpoint.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(connect)?;
                return Ok((Stream::from(Transport::Unix(stream)), Protocol::Http1));
            }
            Place::Tcp(host, port) => self.reach_tcp(host, *port).await.map_err(connect)?,
        };
        let Some((connector, name)) = &self.tls else {
            let is_http2 = self.endpoint.scheme == Scheme::H2c;
            let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
            return Ok((Stream::from(Transport::Tcp(stream)), protocol));
        };
        let tls = |source| OriginError::Tls { server: self.name(), source };
        let stream = connector.connect(name.clone(), stream).await.map_err(tls)?;
        let stream = Stream::from(Transport::Tls(Box::new(TlsStream::Client(stream))));
        let protocol = stream.agreed_protocol();
        Ok((stream, protocol))
    }

    /// The first address that answers; each gets its share of the time.
    async fn reach_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failure)
    }
}

fn server_name(endpoint: &Endpoint, settings: &Settings) -> Result<ServerName<'static>, TlsError> {
    let name = match (&settings.tls.server_name, &endpoint.place) {
        (Some(name), _) => name.clone(),
        (None, Place::Tcp(host, _)) => host.clone(),
        (None, Place::Unix(_)) => "localhost".to_owned(),
    };
    ServerName::try_from(name.clone()).map_err(|source| TlsError::Name { name, source })
}
