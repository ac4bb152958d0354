//! Content codings that a route applies to stored responses: negotiation, validators, ranges, what is
//! left alone, and that each form is made once.

mod conditions;
mod explain;
mod keeping;
mod model;
mod negotiation;
mod verification;

use std::{fmt::Write as _, io::Read};

use crate::support::{
    proxy::{Proxy, request},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire, header},
};

const ROUTE: &str = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"\nencode = [\"br\", \"zstd\", \"gzip\"]\n";

const BROWSER: (&str, &str) = ("accept-encoding", "gzip, deflate, br, zstd");

/// A body of at least this many bytes that compresses well.
fn json(bytes: usize) -> String {
    let mut text = String::from("[0");
    while text.len() < bytes {
        let id = text.len();
        write!(text, ",{{\"id\":{id},\"name\":\"item {}\"}}", id % 97).unwrap();
    }
    text + "]"
}

/// A fresh response that may be encoded.
fn encodable(body: impl Into<String>) -> OriginResponse {
    OriginResponse::fresh(body).with("content-type", "application/json").with("etag", "\"v1\"")
}

async fn origin_of(response: OriginResponse) -> ScriptedOrigin {
    ScriptedOrigin::start(move |_| response.clone()).await
}

/// A reply whose body may be coded.
struct CodedReply {
    head: String,
    bytes: Vec<u8>,
}

impl CodedReply {
    fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    fn cache(&self) -> &str {
        self.header("x-api-cache").unwrap_or("-")
    }

    fn status(&self) -> u16 {
        Reply { head: self.head.clone(), body: String::new() }.status()
    }

    fn coding(&self) -> &str {
        self.header("content-encoding").unwrap_or("-")
    }

    fn etag(&self) -> &str {
        self.header("etag").unwrap_or("-")
    }

    /// The result, the coding and the status, for comparison.
    fn summary(&self) -> String {
        format!("{} {} {}", self.status(), self.cache(), self.coding())
    }

    fn decoded(&self) -> String {
        decode(self.coding(), &self.bytes)
    }
}

fn decode(coding: &str, bytes: &[u8]) -> String {
    let mut body = Vec::new();
    match coding {
        "br" => brotli::BrotliDecompress(&mut &*bytes, &mut body).unwrap(),
        "zstd" => body = zstd::stream::decode_all(bytes).unwrap(),
        "gzip" => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut body).unwrap()),
        _ => body = bytes.to_vec(),
    }
    String::from_utf8(body).unwrap()
}

async fn send(proxy: &Proxy, method: &str, target: &str, fields: &[(&str, &str)]) -> CodedReply {
    let mut wire = Wire::connect(proxy.address).await;
    exchange(&mut wire, method, target, fields).await
}

async fn exchange(
    wire: &mut Wire,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> CodedReply {
    wire.write(request(method, target, fields)).await;
    let head = wire.read_head().await;
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let has_body = method != "HEAD" && !matches!(status, 204 | 304);
    let bytes = if has_body { wire.read_exact_bytes(length).await } else { Vec::new() };
    CodedReply { head, bytes }
}

async fn get(proxy: &Proxy, target: &str, fields: &[(&str, &str)]) -> CodedReply {
    send(proxy, "GET", target, fields).await
}

/// Asks until the response comes in this coding. A large body is sent as it is stored while it is
/// encoded.
async fn until_coded(proxy: &Proxy, target: &str, coding: &str) -> CodedReply {
    loop {
        let reply = get(proxy, target, &[("accept-encoding", coding)]).await;
        if reply.coding() == coding {
            return reply;
        }
        tokio::task::yield_now().await;
    }
}

/// The number of forms that were made.
async fn made(proxy: &Proxy) -> u64 {
    proxy.metric("larder_encodings_total", "result=\"made\"").await
}
