//! Clients that read through all nodes.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::time::{Duration, sleep, timeout};

use super::{
    Run,
    cluster::Node,
    history::Read,
    targets::{self, Kind, Selector},
};
use crate::support::{
    proxy::request,
    random::Random,
    wire::{Reply, Wire},
};

/// Client timeout: longer than a node is suspended.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum pause between two requests of a client, in milliseconds.
const PAUSE: usize = 100;

/// Reads until the run is over.
pub(super) async fn read(run: Arc<Run>, mut random: Random) {
    let mut wires = HashMap::new();
    while !run.history.is_over() {
        sleep(Duration::from_millis(random.below(PAUSE) as u64)).await;
        let target = targets::next(&mut random, &run.history.targets);
        let Some(node) = run.cluster.any(&mut random) else { continue };
        let color = *random.pick(&["red", "blue"]);
        read_one(&run, &node, target, color, &mut wires).await;
    }
}

/// Reads one of the selected targets on every node, in the background.
pub(super) fn everywhere(run: &Arc<Run>, random: &mut Random, selector: &Selector) {
    let all = run.history.targets.iter().enumerate();
    let selected: Vec<_> = all.filter(|(_, target)| selector.selects(target)).collect();
    let Some((target, _)) = selected.get(random.below(selected.len().max(1))) else { return };
    for node in run.cluster.nodes() {
        let (run, target) = (Arc::clone(run), *target);
        tokio::spawn(async move {
            read_one(&run, &node, target, "red", &mut HashMap::new()).await;
        });
    }
}

/// Reads a target once on a node. Returns its number, if there is one.
pub(super) async fn read_one(
    run: &Run,
    node: &Node,
    target: usize,
    color: &str,
    wires: &mut HashMap<usize, Wire>,
) -> Option<u64> {
    let history = &run.history;
    let path = &history.targets[target].path;
    let wire = wires.remove(&node.seat.process);
    let bound = history.lower_bound(node.seat, target);
    let begin = Instant::now();
    let exchange = send(node, wire, request("GET", path, &[("x-color", color)]));
    let answer = timeout(TIMEOUT, exchange).await.ok().flatten();
    let end = Instant::now();
    let Some((reply, wire)) = answer else {
        if node.is_ending() {
            history.count("read without response from an ended node");
        } else {
            let took = end - begin;
            history.violated(format!("no response to GET {path} on {} in {took:?}", node.seat));
        }
        return None;
    };
    if !reply.header("connection").is_some_and(|value| value.contains("close")) {
        wires.insert(node.seat.process, wire);
    }
    if stands_for_a_failure_of_the_origin(&reply) {
        history.count("read with an origin error");
        return None;
    }
    let number = number(&reply, history.targets[target].kind);
    let Some(number) = number else {
        history.violated(format!("GET {path} on {}: {reply:.300?}", node.seat));
        return None;
    };
    if reply.status() == 200 {
        let (seat, cache) = (node.seat, reply.cache().to_owned());
        history.read(&Read { seat, target, begin, end, number, cache }, bound);
    } else {
        history.count("read of a shared origin error");
    }
    Some(number)
}

async fn send(node: &Node, wire: Option<Wire>, request: String) -> Option<(Reply, Wire)> {
    let mut wire = match wire {
        Some(wire) => wire,
        None => Wire::try_connect(node.process.address).await?,
    };
    let reply = wire.try_exchange(request).await?;
    Some((reply, wire))
}

/// Returns the number in a complete response of the origin.
fn number(reply: &Reply, kind: Kind) -> Option<u64> {
    let number: u64 = reply.header("x-number")?.parse().ok()?;
    let body = &reply.body;
    let is_whole = match (reply.status(), kind) {
        (200, Kind::Described) => body.starts_with(&format!("{{\"number\":{number},")),
        (200, Kind::Large) => {
            let mut words = body.split(' ');
            let ends = [words.next()?, words.next_back()?];
            ends.iter().all(|word| *word == number.to_string())
        }
        // A confirmed response keeps its body.
        (200, Kind::Revalidated) => body.parse::<u64>().ok()? <= number,
        (200, _) => *body == number.to_string(),
        (503, Kind::Rescued) => true,
        _ => false,
    };
    is_whole.then_some(number)
}

/// Returns whether this replaces a failed response that the request waited for.
fn stands_for_a_failure_of_the_origin(reply: &Reply) -> bool {
    let status = reply.header("cache-status").unwrap_or_default();
    let is_shared = status.ends_with("; collapsed; detail=origin-error");
    is_shared && status.contains(&format!("; fwd-status={}", reply.status()))
}
