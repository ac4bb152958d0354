//! Whether an answer is one that its asker may have.

use super::{
    request::Sent,
    stamp::{Kind, Mode, entity_tag},
    token,
    world::{End, Floor, World, now},
};
use crate::support::wire::Reply;

/// For how long accepted credentials are good without the origin, by the configuration.
pub(super) const RECHECK: f64 = 2.0;
/// How long it may take until an answer of the origin is known to all nodes: of one credential they write one
/// refusal a second, and those that follow at its end.
const SPREADING: f64 = 1.5;

/// What an answer is, in a few words; or what is wrong with it.
pub(super) fn judge(world: &World, sent: &Sent, reply: &Reply) -> Result<String, String> {
    let status = reply.status();
    let is_own = reply.header("x-answer-to") == Some(sent.nonce.as_str());
    cookies(sent, reply)?;
    match status {
        401 | 403 if !is_own => return Err("somebody else's refusal".to_owned()),
        401 => {
            note_refusal(world, sent, reply);
            return Ok(format!("401 {}", reply.header("x-why").unwrap_or("-")));
        }
        403 => {
            // Of several credentials nobody can tell which one it is about.
            let mut credentials = sent.asker.credentials();
            if let (Some(one), None) = (credentials.next(), credentials.next())
                && reply.cache() != "BYPASS"
            {
                world.note_denied(&sent.asker.denied(one, sent.kind), &sent.target);
            }
            return Ok("403".to_owned());
        }
        // Word of a failure that another request was answered with: it holds nothing of that answer.
        429 | 500..=599 if is_larders_own(reply) => return Ok(status.to_string()),
        _ => {}
    }
    stamp(sent, reply, status)?;
    if status == 503 {
        return Ok("503".to_owned());
    }
    validity(world, sent)?;
    freshness(sent, reply)?;
    downstream(sent, reply)?;
    let prefix = if status == 304 { "304 " } else { "" };
    Ok(format!("{prefix}{} {}", reply.cache(), sent.kind.as_str()))
}

/// Notes a refusal that Larder can tell is about these credentials: of a request that took part in a partition,
/// with one credential.
fn note_refusal(world: &World, sent: &Sent, reply: &Reply) {
    let has_part = sent.kind.is_protected() && reply.cache() != "BYPASS";
    let mut credentials = sent.asker.credentials();
    if let (Some(one), None) = (credentials.next(), credentials.next())
        && has_part
        && reply.header("x-why") == Some("credentials")
    {
        world.note_refused(one);
    }
}

/// Only the asker's own cookies are set, and none where all share.
fn cookies(sent: &Sent, reply: &Reply) -> Result<(), String> {
    let cookies = reply.all("set-cookie");
    if cookies.iter().any(|cookie| *cookie != format!("last={}", sent.nonce)) {
        return Err("somebody else's cookie".to_owned());
    }
    let is_shared = sent.kind == Kind::Everyone && reply.cache() != "BYPASS";
    if is_shared && !cookies.is_empty() {
        return Err("a cookie on what everyone shares".to_owned());
    }
    Ok(())
}

/// The stamp is that of the asker, with the asker's rights.
fn stamp(sent: &Sent, reply: &Reply, status: u16) -> Result<(), String> {
    let Sent { kind, mode, path, asker, .. } = sent;
    let mut allowed = vec![asker.unknown_person().stamp(*kind, *mode)];
    if *kind != Kind::Everyone {
        allowed.clear();
    }
    if *kind != Kind::Everyone || reply.cache() == "BYPASS" {
        allowed.push(asker.stamp(*kind, *mode));
    }
    let is_tagged = |stamp: &String| {
        let tag = reply.header("etag").unwrap_or_default();
        tag.contains(&entity_tag(&format!("{path} {stamp}")))
    };
    if status == 304 {
        return allowed.iter().any(is_tagged).then_some(()).ok_or("another's tag".to_owned());
    }
    let stamp = reply.header("x-stamp").unwrap_or("(none)");
    if !allowed.iter().any(|allowed| allowed == stamp) {
        return Err(format!("stamped {stamp}, not {}", allowed.join(" or ")));
    }
    let body = format!("{path} {stamp}");
    if status == 200 && sent.method == "GET" && reply.body != body {
        return Err(format!("the body is {:?}, not {body:?}", reply.body));
    }
    Ok(())
}

/// Its credentials were still good when the request was sent.
fn validity(world: &World, sent: &Sent) -> Result<(), String> {
    let Sent { kind, mode, target, asker, at, .. } = sent;
    let is_for_all = *kind == Kind::Everyone || (*kind == Kind::Plain && *mode == Mode::Public);
    if is_for_all {
        return Ok(());
    }
    if kind.is_protected() && !asker.has_credentials() {
        return Err("an answer to nobody".to_owned());
    }
    if let Some(token) = &asker.token
        && world.has_tokens
        && !token::is_accepted(token, *at)
    {
        return Err("an answer to a token that is not accepted".to_owned());
    }
    for credential in asker.credentials() {
        match world.ended(credential) {
            Some(End::LoggedOut(ended)) if ended <= *at => {
                return Err(format!("an answer {:.3} s after the logout", at - ended));
            }
            Some(End::Revoked(ended)) if ended + RECHECK + SPREADING < *at => {
                return Err(format!("an answer {:.3} s after the revocation", at - ended));
            }
            _ => {}
        }
        let late =
            |since: Option<f64>| since.map(|since| at - since).filter(|passed| *passed > SPREADING);
        if let Some(passed) = late(world.refused_since(credential)) {
            return Err(format!("an answer {passed:.3} s after its credential was refused"));
        }
        if let Some(passed) = late(world.denied_since(&asker.denied(credential, *kind), target)) {
            return Err(format!("an answer {passed:.3} s after access was denied"));
        }
    }
    Ok(())
}

/// It began after what was purged, is of its target, and is not older than the token behind it.
fn freshness(sent: &Sent, reply: &Reply) -> Result<(), String> {
    if reply.status() == 304 {
        return Ok(());
    }
    let number: u64 = reply.header("x-number").and_then(|text| text.parse().ok()).unwrap_or(0);
    let Floor { number: floor, cause } = sent.floor;
    if number <= floor {
        return Err(format!("number {number} after {floor}, by {cause}"));
    }
    if reply.header("x-path") != Some(&sent.path) {
        return Err(format!("an answer of {:?}", reply.header("x-path")));
    }
    let is_stored = !matches!(reply.cache(), "BYPASS" | "MISS");
    if is_stored && sent.mode == Mode::NoStore {
        return Err("stored against the origin's word".to_owned());
    }
    let ends = reply.header("x-ends").and_then(|text| text.parse::<f64>().ok());
    if sent.kind == Kind::User && ends.is_some_and(|ends| ends <= sent.at) {
        return Err(format!("fetched with a token that has ended ({:.3} s)", now() - sent.at));
    }
    Ok(())
}

/// What belongs to a partition says so to caches downstream.
fn downstream(sent: &Sent, reply: &Reply) -> Result<(), String> {
    let says = reply.all("cache-control").join(",");
    let is_kept = says.contains("private") || says.contains("no-store");
    if sent.kind.is_protected() && reply.cache() == "HIT" && !is_kept {
        return Err(format!("caches downstream are told {says:?}"));
    }
    Ok(())
}

/// Whether a reply is a problem document of Larder itself.
fn is_larders_own(reply: &Reply) -> bool {
    reply.header("x-stamp").is_none()
        && reply.header("content-type") == Some("application/problem+json")
}
