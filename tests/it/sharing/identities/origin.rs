//! The origin: it verifies credentials itself, stamps each answer with whom it saw, and fails as the
//! weather says.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::{
    stamp::{Asker, Kind, Mode, entity_tag, parse},
    token,
    world::{End, Weather, World, now, user_of},
};
use crate::support::{
    random::Random,
    wire::{RawOrigin, Wire, header},
};

/// How long answers take, in milliseconds: mostly a moment, sometimes long enough for others to wait.
const SOON: usize = 4;
const LATE: usize = 60;
const SLOW: usize = 250;

/// Starts it.
pub(super) async fn start(world: Arc<World>, seed: u64) -> RawOrigin {
    RawOrigin::start(move |wire, number| {
        let random = Random::seeded(seed * 100_000 + number as u64);
        converse(wire, Arc::clone(&world), random)
    })
    .await
}

async fn converse(mut wire: Wire, world: Arc<World>, mut random: Random) {
    while let Some(head) = wire.try_read_head().await {
        if wire.try_read_body(&head).await.is_none() {
            return;
        }
        let number = world.next_number();
        let weather = Weather::at(number);
        if weather == Weather::Resets && random.one_in(2) {
            return;
        }
        let answer = answer(&world, &head, number, weather, &mut random);
        tokio::time::sleep(pause(weather, &mut random)).await;
        if !wire.try_write(answer).await {
            return;
        }
    }
}

fn pause(weather: Weather, random: &mut Random) -> Duration {
    let most = match weather {
        Weather::Slow => SLOW,
        _ if random.one_in(8) => LATE,
        _ => SOON,
    };
    Duration::from_millis(random.below(most) as u64)
}

/// An answer's head and body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn with(mut self, name: &str, value: &str) -> Self {
        write!(self.head, "{name}: {value}\r\n").unwrap();
        self
    }

    fn text(self, method: &str) -> String {
        let (status, fields, length) = (self.status, self.head, self.body.len());
        let framing = match status {
            204 | 304 => String::new(),
            _ => format!("content-length: {length}\r\n"),
        };
        let body = if matches!(status, 204 | 304) || method == "HEAD" { "" } else { &self.body };
        format!("HTTP/1.1 {status} Stamped\r\n{fields}{framing}\r\n{body}")
    }
}

fn answer(world: &World, head: &str, number: u64, weather: Weather, random: &mut Random) -> String {
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    let asker = Asker::of(head);
    let nonce = header(head, "x-nonce").unwrap_or("-").to_owned();
    let status = |status| {
        Answer { status, head: String::new(), body: String::new() }
            .with("x-number", &number.to_string())
            .with("x-answer-to", &nonce)
    };
    let (kind, mode) = parse(path).unwrap_or((Kind::User, Mode::NoStore));
    let stamp = asker.stamp(kind, mode);
    let refusal = refusal(world, &asker, kind, path, weather);
    if let Some((code, why)) = refusal {
        return status(code).with("x-why", why).with("www-authenticate", "Bearer").text(method);
    }
    if weather == Weather::Errors && random.one_in(2) {
        return status(503).with("x-stamp", &stamp).text(method);
    }
    if !matches!(method, "GET" | "HEAD") {
        return written(world, path, &asker, status(204)).text(method);
    }
    let answer = with_lifetime(status(200).with("x-stamp", &stamp).with("x-path", path), mode);
    let answer = with_end(answer, &asker);
    let answer =
        if random.one_in(6) { answer.with("set-cookie", &format!("last={nonce}")) } else { answer };
    let tag = format!("\"{}-{}\"", entity_tag(&format!("{path} {stamp}")), number / 2000);
    let answer = answer.with("etag", &tag);
    if header(head, "if-none-match").is_some_and(|known| known.contains(&tag)) {
        return Answer { status: 304, ..answer }.text(method);
    }
    Answer { body: format!("{path} {stamp}"), ..answer }.text(method)
}

/// Whether a request is refused, and why.
fn refusal(
    world: &World,
    asker: &Asker,
    kind: Kind,
    path: &str,
    weather: Weather,
) -> Option<(u16, &'static str)> {
    let (now, has_tokens) = (now(), world.has_tokens);
    if weather == Weather::Refusing && asker.has_credentials() {
        return Some((401, "weather"));
    }
    let is_wrong = |credential: &String| world.ended(credential).is_some();
    let is_bad_token = |token: &String| has_tokens && !token::is_accepted(token, now);
    // A resource for everyone is not asked for with credentials.
    if kind != Kind::Everyone
        && (asker.credentials().any(is_wrong) || asker.token.as_ref().is_some_and(is_bad_token))
    {
        return Some((401, "credentials"));
    }
    if kind.is_protected() && !asker.has_credentials() {
        return Some((401, "nobody"));
    }
    let user = asker.credentials().find_map(|credential| user_of(credential));
    user.is_some_and(|user| world.is_withdrawn(user, path)).then_some((403, "withdrawn"))
}

fn written(world: &World, path: &str, asker: &Asker, answer: Answer) -> Answer {
    if path.ends_with("/logout") {
        // Logged out it is only once the client knows; until then it is revoked.
        for credential in asker.credentials() {
            world.end(credential, End::Revoked(now()));
        }
    }
    answer
}

fn with_lifetime(answer: Answer, mode: Mode) -> Answer {
    match mode {
        Mode::Silent => answer,
        Mode::Fresh => {
            answer.with("cache-control", "max-age=1, stale-while-revalidate=3, stale-if-error=5")
        }
        Mode::Private => answer.with("cache-control", "private, max-age=1"),
        Mode::Public => answer.with("cache-control", "public, max-age=1, stale-while-revalidate=3"),
        Mode::NoStore => answer.with("cache-control", "no-store"),
        Mode::Language => answer.with("vary", "Accept-Language"),
        Mode::VaryCredential => answer.with("vary", "Authorization, Cookie, X-API-Key"),
    }
}

/// Says when the token of the request ends.
fn with_end(answer: Answer, asker: &Asker) -> Answer {
    match asker.claims() {
        Some(claims) => answer.with("x-ends", &token::expiry(&claims).to_string()),
        None => answer,
    }
}
