//! Purges by every trigger.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    Run,
    cluster::{Node, TOKEN},
    history::Reach,
    reads,
    records::Expected,
    targets::{Selector, SelectorKind},
};
use crate::support::{
    proxy::{request, request_with_body},
    random::Random,
    wire::{Reply, Wire},
};

/// Longer than the limit for 202 responses, and than a node is suspended.
const TIMEOUT: Duration = Duration::from_secs(12);
/// The pause between two purges of a client, in milliseconds.
const PAUSE: (usize, usize) = (250, 1000);
/// Maximum number of calls with the same key.
const ATTEMPTS: usize = 4;

/// The trigger of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Api,
    /// With an `Idempotency-Key`, repeated until acknowledged.
    Keyed,
    Method,
    Webhook,
    Fastly,
    Cloudflare,
}

impl Source {
    pub(super) const ALL: [Self; 6] =
        [Self::Api, Self::Keyed, Self::Method, Self::Webhook, Self::Fastly, Self::Cloudflare];

    /// Returns the counter of acknowledged purges.
    pub(super) const fn acknowledged(self) -> &'static str {
        match self {
            Self::Api => "acknowledged api",
            Self::Keyed => "acknowledged api with a key",
            Self::Method => "acknowledged method",
            Self::Webhook => "acknowledged webhook",
            Self::Fastly => "acknowledged fastly",
            Self::Cloudflare => "acknowledged cloudflare",
        }
    }

    /// Returns the selectors that this trigger supports.
    const fn wanted(self) -> &'static [SelectorKind] {
        match self {
            Self::Api | Self::Keyed | Self::Cloudflare => &[
                SelectorKind::Url,
                SelectorKind::Url,
                SelectorKind::Url,
                SelectorKind::Tag,
                SelectorKind::Tag,
                SelectorKind::Wide,
            ],
            Self::Method | Self::Fastly => {
                &[SelectorKind::Url, SelectorKind::Url, SelectorKind::Tag]
            }
            Self::Webhook => &[SelectorKind::Tag],
        }
    }
}

/// A purge call.
struct Call {
    source: Source,
    selector: Selector,
    is_soft: bool,
    /// A tag without responses, which identifies the record.
    id: String,
}

/// Purges until the run is over.
pub(super) async fn purge(run: Arc<Run>, mut random: Random, number: usize) {
    for turn in 0.. {
        let (min, max) = PAUSE;
        sleep(Duration::from_millis((min + random.below(max - min)) as u64)).await;
        if run.history.is_over() {
            return;
        }
        let source = Source::ALL[(turn + number) % Source::ALL.len()];
        let selector = Selector::any(&mut random, &run.history.targets, source.wanted());
        let may_be_soft = !matches!(source, Source::Webhook | Source::Cloudflare);
        let is_soft = may_be_soft && random.one_in(8);
        let call = Call { source, selector, is_soft, id: format!("id:{number}-{turn}") };
        let attempts = if source == Source::Keyed { ATTEMPTS } else { 1 };
        call.make(&run, &mut random, attempts).await;
    }
}

impl Call {
    /// Repeats the call on random nodes until it is acknowledged, at most `attempts` times.
    async fn make(&self, run: &Arc<Run>, random: &mut Random, attempts: usize) {
        let (mut first, mut begun) = (None, None);
        for _ in 0..attempts {
            let Some(node) = run.cluster.any(random) else { continue };
            let last = run.origin.last();
            let (first, begun) = (*first.get_or_insert(last), *begun.get_or_insert(Instant::now()));
            let Self { source, selector, is_soft, .. } = self;
            let mode = if *is_soft { "soft " } else { "" };
            let text = format!("{mode}{source:?} {selector:?} on {}, after {last}", node.seat);
            let event = run.history.begins(text, vec![selector.clone()]);
            // Requests in progress during the purge, and reads right after it, are the critical
            // ones.
            reads::everywhere(run, random, selector);
            let reply = timeout(TIMEOUT, self.send(&node)).await.ok().flatten();
            run.history.ends(event, &outcome(reply.as_ref()));
            let Some(reply) = reply else { continue };
            if let Some(receipt) = Receipt::of(&reply) {
                // For a duplicate, the purge happened with the first attempt or a later one.
                let last = if receipt.is_duplicate { first } else { last };
                if !is_soft {
                    run.history.require(event, last + 1, Reach::Everywhere);
                }
                run.history.count(source.acknowledged());
                reads::everywhere(run, random, selector);
                let expected = Expected::new(self.marker(), Some(receipt.seq), begun);
                run.records.expect(expected);
                return;
            }
            if !matches!(reply.status(), 202 | 503) {
                run.history.violated(format!("{self:?} on {}: {reply:?}", node.seat));
            }
            sleep(Duration::from_millis(random.below(300) as u64)).await;
        }
    }

    /// Returns the selector that identifies the record.
    fn marker(&self) -> String {
        match (self.source, &self.selector) {
            (Source::Method | Source::Fastly, Selector::Url(path)) => format!("api.test{path}"),
            _ => self.id.clone(),
        }
    }

    async fn send(&self, node: &Node) -> Option<Reply> {
        let (listener, call) = match self.source {
            Source::Api | Source::Keyed => (node.process.admin, self.own()),
            Source::Fastly => (node.process.admin, self.fastly()),
            Source::Cloudflare => (node.process.admin, self.cloudflare()),
            Source::Method => (node.process.address, self.method()),
            Source::Webhook => (node.process.address, self.webhook()),
        };
        Wire::try_connect(listener).await?.try_exchange(call).await
    }

    fn own(&self) -> String {
        let mode = if self.is_soft { "soft" } else { "hard" };
        let mut body = json!({ "mode": mode, "tags": [self.id], "reason": "the checker" });
        match &self.selector {
            Selector::Tag(tag) => body["tags"] = json!([self.id, tag]),
            Selector::Url(path) => body["urls"] = json!([path]),
            Selector::Prefix(prefix) => body["prefixes"] = json!([prefix]),
            Selector::Everything => body["everything"] = json!(true),
        }
        let key = ("idempotency-key", &*self.id);
        let fields = [TOKEN, key];
        let fields = if self.source == Source::Keyed { &fields[..] } else { &fields[..1] };
        request_with_body("POST", "/v1/purge", fields, &body.to_string())
    }

    fn fastly(&self) -> String {
        let soft = ("fastly-soft-purge", if self.is_soft { "1" } else { "0" });
        match &self.selector {
            Selector::Url(path) => {
                request("POST", &format!("/purge/api.test{path}"), &[TOKEN, soft])
            }
            selector => {
                let keys = self.keys(selector);
                request("POST", "/service/s/purge", &[TOKEN, soft, ("surrogate-key", &keys)])
            }
        }
    }

    fn method(&self) -> String {
        let soft = ("fastly-soft-purge", if self.is_soft { "1" } else { "0" });
        match &self.selector {
            Selector::Url(path) => request("PURGE", path, &[soft]),
            selector => {
                let keys = self.keys(selector);
                request("PURGE", "/", &[soft, ("surrogate-key", &keys)])
            }
        }
    }

    fn cloudflare(&self) -> String {
        let mut body = json!({ "tags": [self.id] });
        match &self.selector {
            Selector::Tag(tag) => body["tags"] = json!([self.id, tag]),
            Selector::Url(path) => body["files"] = json!([format!("http://api.test{path}")]),
            Selector::Prefix(prefix) => body["prefixes"] = json!([format!("api.test{prefix}")]),
            Selector::Everything => body["purge_everything"] = json!(true),
        }
        request_with_body("POST", "/client/v4/zones/z/purge_cache", &[TOKEN], &body.to_string())
    }

    fn webhook(&self) -> String {
        let Selector::Tag(tag) = &self.selector else { panic!("webhooks purge tags") };
        let body = json!({ "tags": [self.id, tag] }).to_string();
        request_with_body("POST", "/_larder/webhooks/shop", &[TOKEN], &body)
    }

    fn keys(&self, selector: &Selector) -> String {
        let Selector::Tag(tag) = selector else { panic!("{selector:?} is not a tag") };
        format!("{} {tag}", self.id)
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{:?} {:?} ({})", self.source, self.selector, self.id)
    }
}

/// An acknowledgement in any form.
struct Receipt {
    seq: u64,
    is_duplicate: bool,
}

impl Receipt {
    fn of(reply: &Reply) -> Option<Self> {
        if reply.status() != 200 {
            return None;
        }
        let body: Value = serde_json::from_str(&reply.body).ok()?;
        let is_duplicate = body["duplicate"] == true;
        if let Some(seq) = body["seq"].as_u64() {
            return Some(Self { seq, is_duplicate });
        }
        let ids = [&body["id"], &body["result"]["id"]];
        let id = ids.into_iter().find_map(Value::as_str);
        let id = id.or_else(|| body.as_object()?.values().next()?.as_str())?;
        Some(Self { seq: id.parse().ok()?, is_duplicate })
    }
}

fn outcome(reply: Option<&Reply>) -> String {
    match reply {
        Some(reply) => format!("{} {}", reply.status(), reply.body),
        None => "no answer".to_owned(),
    }
}
