//! Recent clients by host, with the header fields that they send. Used for warming.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;

use super::ingress::is_target_field;
use crate::{
    forward::forwarded_fields,
    key::uri::{Scheme, host},
    server::Connection,
    warm::{ClientProfile, WarmHost},
};

/// Maximum number of hosts remembered.
const HOSTS: usize = 32;

/// Maximum number of client groups remembered for each host.
const KINDS: usize = 8;

/// Maximum number of client groups for which a target without recent clients is warmed.
const CLIENTS_PER_TARGET: usize = 4;

/// Maximum size of one group's fields, in bytes.
const MAX_FIELD_BYTES: usize = 2048;

/// Number of requests for one host after which all its counts are halved.
const HALVED_AT: u32 = 4096;

/// Fields by which origins select responses, and whose values many clients share.
const SELECTING: [HeaderName; 4] =
    [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ORIGIN];

/// The `Accept-Encoding` of browsers, used for a host without recent clients.
const BROWSER_CODINGS: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");

/// Hosts with recent successful requests, and their groups of clients. Bounded: the least requested
/// host or group is evicted.
#[derive(Default)]
pub(super) struct RecentClients(Mutex<Vec<RecentHost>>);

struct RecentHost {
    /// The host in canonical form.
    name: Box<str>,
    requests: u32,
    kinds: Vec<ClientGroup>,
}

/// Clients with the same scheme and the same selecting fields.
struct ClientGroup {
    client: ClientProfile,
    requests: u32,
}

impl RecentClients {
    /// Records a successful request for the host `name`, which is in canonical form.
    pub(super) fn note(&self, name: &str, connection: &Connection, headers: &HeaderMap) {
        let headers = selecting(headers);
        if size(&headers) > MAX_FIELD_BYTES {
            return;
        }
        let client = ClientProfile::new((connection.peer, connection.secure), name, headers);
        let mut hosts = self.0.lock();
        let index = hosts.iter().position(|host| *host.name == *name);
        let host = index.unwrap_or_else(|| add(&mut hosts, HOSTS, RecentHost::new(name)));
        if let Some(host) = hosts.get_mut(host) {
            host.note(client);
            if host.requests >= HALVED_AT {
                hosts.iter_mut().for_each(RecentHost::halve);
            }
        }
    }

    /// Returns the clients for which to warm a target of this host, the most frequent first.
    /// Without a host, uses the busiest host. Returns none if no host is known.
    pub(super) fn of(&self, host: Option<&WarmHost>) -> Vec<ClientProfile> {
        let hosts = self.0.lock();
        let Some(wanted) = host else {
            let busiest = hosts.iter().max_by_key(|host| host.requests);
            return busiest.map(|host| host.clients(None)).unwrap_or_default();
        };
        let name = host::canonical(&wanted.name, wanted.scheme.unwrap_or(wanted.default_scheme));
        let known = hosts.iter().find(|host| *host.name == *name);
        let clients = known.map(|host| host.clients(wanted.scheme)).unwrap_or_default();
        if clients.is_empty() { vec![default_client(wanted, &name)] } else { clients }
    }
}

impl RecentHost {
    fn new(name: &str) -> Self {
        Self { name: name.into(), requests: 0, kinds: Vec::new() }
    }

    fn note(&mut self, client: ClientProfile) {
        self.requests += 1;
        let is_same = |kind: &ClientGroup| {
            kind.client.connection.secure == client.connection.secure
                && kind.client.headers == client.headers
        };
        if let Some(kind) = self.kinds.iter_mut().find(|kind| is_same(kind)) {
            kind.client = client;
            kind.requests += 1;
        } else {
            add(&mut self.kinds, KINDS, ClientGroup { client, requests: 1 });
        }
    }

    fn halve(&mut self) {
        self.requests /= 2;
        self.kinds.iter_mut().for_each(|kind| kind.requests /= 2);
    }

    fn clients(&self, scheme: Option<Scheme>) -> Vec<ClientProfile> {
        let fits =
            |kind: &&ClientGroup| scheme.is_none_or(|scheme| scheme_of(&kind.client) == scheme);
        let mut kinds: Vec<&ClientGroup> = self.kinds.iter().filter(fits).collect();
        kinds.sort_by_key(|kind| Reverse(kind.requests));
        kinds.into_iter().take(CLIENTS_PER_TARGET).map(|kind| kind.client.clone()).collect()
    }
}

/// An item that counts requests.
trait RequestCount {
    fn requests(&self) -> u32;
}

impl RequestCount for RecentHost {
    fn requests(&self) -> u32 {
        self.requests
    }
}

impl RequestCount for ClientGroup {
    fn requests(&self) -> u32 {
        self.requests
    }
}

/// Adds an item, and returns its index. Replaces the least requested item if there is no room.
fn add<T: RequestCount>(items: &mut Vec<T>, capacity: usize, item: T) -> usize {
    if items.len() < capacity {
        items.push(item);
        return items.len() - 1;
    }
    let rarest = items.iter().enumerate().min_by_key(|(_, item)| item.requests());
    let index = rarest.map_or(0, |(index, _)| index);
    if let Some(old) = items.get_mut(index) {
        *old = item;
    }
    index
}

/// Returns the selecting fields, and the forwarding fields that describe the target.
fn selecting(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| SELECTING.contains(name) || is_target_field(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Returns whether warm-up requests always repeat this field. Many origins list the field in `Vary`
/// only if it made a difference.
pub(super) fn is_sent_again(name: &HeaderName) -> bool {
    *name == header::ACCEPT_ENCODING || *name == header::ORIGIN
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Returns the scheme that a client uses, according to a trusted proxy or else its connection.
pub(super) fn scheme_of(client: &ClientProfile) -> Scheme {
    let own = if client.connection.secure { Scheme::Https } else { Scheme::Http };
    forwarded_fields::scheme(&forwarded_fields::of(&client.headers)).unwrap_or(own)
}

/// Returns a browser-like client for a host without recent clients.
fn default_client(host: &WarmHost, name: &str) -> ClientProfile {
    let secure = host.scheme.unwrap_or(host.default_scheme) == Scheme::Https;
    let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, BROWSER_CODINGS)]);
    ClientProfile::new((None, secure), name, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn note(recent: &RecentClients, host: &str, fields: &[(&'static str, &'static str)]) {
        recent.note(host, &Connection::default(), &headers(fields));
    }

    fn host(text: &str) -> WarmHost {
        WarmHost::parse(text, Scheme::Http).unwrap()
    }

    #[test]
    fn the_host_that_most_clients_asked_for_is_the_usual_one() {
        let recent = RecentClients::default();
        assert!(recent.of(None).is_empty());
        for _ in 0..3 {
            note(&recent, "api.test", &[("accept-encoding", "gzip")]);
        }
        note(&recent, "stranger.test", &[]);
        assert_eq!(&*recent.of(None)[0].host, "api.test");
        for number in 0..10 * HOSTS {
            note(&recent, &format!("{number}.test"), &[]);
        }
        assert_eq!(&*recent.of(None)[0].host, "api.test");
        assert_eq!(recent.0.lock().len(), HOSTS);
    }

    #[test]
    fn the_kinds_of_clients_that_came_most_often_are_known() {
        let recent = RecentClients::default();
        let browser = [("origin", "https://app.test"), ("accept-encoding", "gzip, br")];
        for _ in 0..5 {
            note(&recent, "api.test", &browser);
        }
        note(
            &recent,
            "api.test",
            &[("accept-encoding", "gzip"), ("user-agent", "x"), ("cookie", "a=b")],
        );
        let clients = recent.of(Some(&host("API.test")));
        assert_eq!(clients.len(), 2);
        assert_eq!(clients[0].headers, headers(&browser));
        assert_eq!(clients[1].headers, headers(&[("accept-encoding", "gzip")]));
        for number in 0..10 * KINDS {
            let language = HeaderValue::from_str(&format!("x{number}")).unwrap();
            let fields = HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, language)]);
            recent.note("api.test", &Connection::default(), &fields);
        }
        let clients = recent.of(Some(&host("api.test")));
        assert_eq!((clients.len(), &clients[0].headers), (CLIENTS_PER_TARGET, &headers(&browser)));
    }

    #[test]
    fn a_host_without_clients_is_asked_for_as_browsers_do() {
        let recent = RecentClients::default();
        note(&recent, "api.test", &[]);
        let clients = recent.of(Some(&host("https://other.test:443")));
        assert_eq!((clients.len(), &*clients[0].host), (1, "other.test"));
        assert!(clients[0].connection.secure);
        assert_eq!(clients[0].headers["accept-encoding"], "gzip, deflate, br, zstd");
        let clients = recent.of(Some(&host("https://api.test")));
        assert!(clients[0].connection.secure, "so far clients came by http");
    }

    #[test]
    fn a_trusted_proxy_says_by_which_scheme_clients_come() {
        let recent = RecentClients::default();
        note(&recent, "api.test", &[("x-forwarded-proto", "https")]);
        let clients = recent.of(Some(&host("https://api.test")));
        assert_eq!(clients[0].headers, headers(&[("x-forwarded-proto", "https")]));
    }

    #[test]
    fn counts_fade() {
        let recent = RecentClients::default();
        for _ in 0..HALVED_AT {
            note(&recent, "old.test", &[]);
        }
        for _ in 0..=(HALVED_AT / 2) {
            note(&recent, "new.test", &[]);
        }
        assert_eq!(&*recent.of(None)[0].host, "new.test");
    }
}
