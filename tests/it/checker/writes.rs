//! Clients that write through the proxy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{
    Run,
    cluster::{Metrics, Node},
    history::Reach,
    reads,
    records::Expected,
    targets::{Kind, Selector, Target},
};
use crate::support::{
    proxy::request_with_body,
    random::Random,
    wire::{Reply, Wire},
};

/// Client timeout: longer than a node is suspended.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The pause between two writes of a client, in milliseconds.
const PAUSE: (usize, usize) = (200, 700);

/// Writes until the run is over.
pub(super) async fn write(run: Arc<Run>, mut random: Random, number: usize) {
    let is_writable = |target: &&Target| matches!(target.kind, Kind::Written | Kind::Grouped);
    for turn in 0.. {
        let (min, max) = PAUSE;
        sleep(Duration::from_millis((min + random.below(max - min)) as u64)).await;
        if run.history.is_over() {
            return;
        }
        let Some(node) = run.cluster.any(&mut random) else { continue };
        let writable: Vec<_> = run.history.targets.iter().filter(is_writable).collect();
        let target = *random.pick(&writable);
        let method = match target.kind {
            Kind::Grouped => "PATCH",
            _ => *random.pick(&["PUT", "POST", "DELETE"]),
        };
        let id = format!("{number}w{turn}");
        let own = Selector::Url(target.path.clone());
        reads::everywhere(&run, &mut random, &own);
        write_one(&run, &node, (method, target), &id).await;
        reads::everywhere(&run, &mut random, &own);
    }
}

async fn write_one(run: &Run, node: &Node, (method, target): (&str, &Target), id: &str) {
    let (path, seat) = (&target.path, node.seat);
    let Some(before) = node.metrics().await else { return };
    let event = run.history.begins(format!("{method} {path} on {seat}"), selectors(method, target));
    let begun = Instant::now();
    let call = request_with_body(method, &format!("{path}?id={id}"), &[], "");
    let exchange =
        async { Wire::try_connect(node.process.address).await?.try_exchange(call).await };
    let reply = timeout(TIMEOUT, exchange).await.ok().flatten();
    let Some(reply) = reply else {
        run.history.ends(event, "no answer");
        if !node.is_ending() {
            run.history.violated(format!("no response to {method} {path} on {seat}"));
        }
        return;
    };
    let Some(number) = number(&reply) else {
        return run.history.violated(format!("{method} {path} on {seat}: {reply:?}"));
    };
    run.history.ends(event, &format!("{} {number}", reply.status()));
    run.history.require(event, number, Reach::Here(seat));
    run.history.count("written");
    let expected = Expected::new(format!("id:{id}"), None, begun);
    let after = node.metrics().await;
    if after.is_some_and(|after: Metrics| after.late_writes() == before.late_writes()) {
        run.history.require(event, number, Reach::Everywhere);
        run.history.count("acknowledged write");
        run.records.expect(expected);
    } else {
        run.records.expect(expected.unless_ended(seat));
    }
}

/// Returns the selectors of a write: its URL, URLs in the response, and the tags of its route.
fn selectors(method: &str, target: &Target) -> Vec<Selector> {
    let own = Selector::Url(target.path.clone());
    if target.kind == Kind::Grouped {
        return vec![own, Selector::Tag(format!("g{}", target.quarter()))];
    }
    let (folder, _) = target.path.rsplit_once('/').unwrap();
    let tag = Selector::Tag(folder.replace("/w/", "w:"));
    let mut selectors = vec![own, tag];
    if method == "POST" {
        let next = (target.quarter() + 1) % 4;
        selectors.push(Selector::Url(format!("{folder}/{next}")));
    }
    selectors
}

/// Returns the number in a successful response to a write.
fn number(reply: &Reply) -> Option<u64> {
    let is_success = matches!(reply.status(), 200..=399);
    reply.header("x-number").filter(|_| is_success)?.parse().ok()
}
