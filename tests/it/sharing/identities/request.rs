//! Random requests: users and strangers, with credentials good and bad, alone and together, to every kind
//! of resource.

use super::{
    stamp::{Asker, Kind, Mode},
    token::Flavor,
    world::{Floor, USERS, World, now},
};
use crate::support::{proxy::request, random::Random};

/// A request, and what was true when it was sent.
pub(super) struct Sent {
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) mode: Mode,
    pub(super) text: String,
    pub(super) nonce: String,
    pub(super) asker: Asker,
    pub(super) at: f64,
    /// What its answer's number has to exceed.
    pub(super) floor: Floor,
}

impl Sent {
    pub(super) fn new(
        world: &World,
        (method, target): (&'static str, &str),
        fields: &[(&str, &str)],
        nonce: String,
    ) -> Self {
        let path = target.split('?').next().unwrap().to_owned();
        let (kind, mode) = super::stamp::parse(&path).unwrap_or((Kind::User, Mode::NoStore));
        let fields = [fields, &[("X-Nonce", nonce.as_str())]].concat();
        let text = request(method, target, &fields);
        let asker = Asker::of(&text);
        let floor = world.floor(&purged_by(world, kind, target, &asker));
        Self {
            method,
            target: target.to_owned(),
            path,
            kind,
            mode,
            text,
            nonce,
            asker,
            at: now(),
            floor,
        }
    }
}

impl Sent {
    /// Makes it conditional on a tag that somebody has seen.
    pub(super) fn add_precondition(&mut self, random: &mut Random, world: &World) {
        if let Some(tag) = world.tag(random) {
            let head = self.text.trim_end_matches("\r\n");
            self.text = format!("{head}\r\nIf-None-Match: {tag}\r\n\r\n");
        }
    }
}

/// The names under which purges select the answer to a request.
fn purged_by(world: &World, kind: Kind, target: &str, asker: &Asker) -> Vec<String> {
    let mut names = vec![target.to_owned(), kind.as_str().to_owned()];
    if let Some(owner) = owner(world, kind, asker) {
        names.push(format!("{owner} {target}"));
        names.push(owner);
    }
    names
}

/// To whom answers belong, for what their writes and logouts purge.
pub(super) fn owner(world: &World, kind: Kind, asker: &Asker) -> Option<String> {
    let claims = asker.claims();
    match kind {
        Kind::User if world.has_tokens => Some(format!("user {}", claims?["sub"])),
        Kind::User => {
            let stamp = asker.stamp(Kind::User, Mode::Silent);
            Some(format!("exact {stamp} {}", asker.ignored.join(" ")))
        }
        Kind::Tenant => Some(format!("tenant {}", claims?["tenant"])),
        _ => None,
    }
}

/// A read by anyone.
pub(super) fn random(world: &World, random: &mut Random, nonce: String) -> Sent {
    let kind = *random.pick(world.kinds());
    let target = target(kind, random);
    let mut fields = credentials(world, random);
    fields.extend(further(random));
    let method = if random.one_in(16) { "HEAD" } else { "GET" };
    let fields: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Sent::new(world, (method, &target), &fields, nonce)
}

fn target(kind: Kind, random: &mut Random) -> String {
    let mode = *random.pick(&Mode::ALL);
    let mode = if random.one_in(3) { Mode::Silent } else { mode };
    let number = if random.one_in(12) { 9 } else { random.below(2) };
    let path = format!("/{}/{}/{number}", kind.as_str(), mode.as_str());
    match random.below(40) {
        0 => format!("{path}?api_key=k-{}", random.below(USERS)),
        1 => format!("{path}?page=1"),
        _ => path,
    }
}

type Field = (&'static str, String);

fn bearer(token: &str) -> Field {
    ("Authorization", format!("Bearer {token}"))
}

fn cookie(name: &str, value: &str) -> Field {
    ("Cookie", format!("{name}={value}"))
}

/// Who asks.
fn credentials(world: &World, random: &mut Random) -> Vec<Field> {
    let user = random.below(USERS);
    let session = || cookie("session", &world.current_session(user));
    let key = || ("X-API-Key", format!("k-{user}"));
    let token = |flavor| bearer(&world.current(flavor, user));
    let usual = if world.has_tokens { Flavor::Full } else { Flavor::Narrow };
    match random.below(100) {
        0..48 => vec![token(usual)],
        48..60 => vec![token(Flavor::Narrow)],
        60..70 => vec![token(Flavor::Brief)],
        70..77 => vec![bearer(&world.token(*random.pick(&Flavor::BAD), user))],
        77..81 => world.old(user, random).map_or_else(Vec::new, |old| vec![held(&old)]),
        81..83 => vec![bearer(&world.token(Flavor::Tenantless, user))],
        83..89 => vec![session()],
        89..92 => vec![key()],
        92..94 => vec![token(Flavor::Full), session()],
        94..95 => vec![token(Flavor::Full), token(Flavor::Narrow)],
        95..96 => vec![token(Flavor::Narrow), key()],
        96..97 => vec![cookie("session", "s-99-1")],
        _ => Vec::new(),
    }
}

/// A token or session as the field that carries it.
pub(super) fn held(credential: &str) -> Field {
    if credential.starts_with("s-") { cookie("session", credential) } else { bearer(credential) }
}

/// What else a request says: cookies, languages, preconditions, and fields that are not believed.
fn further(random: &mut Random) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut at_times = |chances, field: Field, random: &mut Random| {
        if random.one_in(chances) {
            fields.push(field);
        }
    };
    let letter = ["a", "b"][random.below(2)];
    at_times(12, cookie("desk", letter), random);
    at_times(12, cookie("theme", ["dark", "light"][random.below(2)]), random);
    at_times(8, cookie("_ga", letter), random);
    let language = ["de", "en", "fr"][random.below(3)];
    at_times(4, ("Accept-Language", language.to_owned()), random);
    at_times(40, ("X-Forwarded-User", "u1".to_owned()), random);
    at_times(40, ("X_Api_Key", "k-1".to_owned()), random);
    at_times(60, ("Cache-Control", "no-cache".to_owned()), random);
    at_times(60, ("Range", "bytes=0-3".to_owned()), random);
    fields
}
