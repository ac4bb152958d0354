//! What users and operators do beside reading: write, purge, log in and out, revoke, withdraw.

use super::{
    request::{Sent, held, owner},
    run::Client,
    stamp::{Kind, Mode},
    token::Flavor,
    world::{End, Floor, USERS, now},
};
use crate::support::{proxy::request_with_body, wire::Reply};

/// What operators show.
pub(super) const TOKEN: (&str, &str) = ("authorization", "Bearer secret");

impl Client {
    /// One of the things that users do beside reading; what it was.
    pub(super) async fn act(&mut self) -> &'static str {
        match self.random.below(100) {
            0..50 => self.write().await,
            50..65 => self.purge().await,
            65..75 => self.log_out().await,
            75..85 => self.revoke(),
            85..97 => self.log_in().await,
            _ => self.withdraw(),
        }
    }

    /// A request of a user with nothing but one credential.
    async fn post(&mut self, target: &str, credential: &str) -> Option<(Sent, Reply)> {
        let (name, value) = held(credential);
        let nonce = self.nonce();
        let sent = Sent::new(&self.world, ("POST", target), &[(name, &value)], nonce);
        let reply = self.exchange(&sent).await?;
        (reply.status() == 204).then_some((sent, reply))
    }

    /// A token or, at times, a session where sessions are a user's whole identity.
    fn credential(&mut self, user: usize) -> String {
        if !self.world.has_tokens && self.random.one_in(2) {
            return self.world.current_session(user);
        }
        let flavor = *self.random.pick(&[Flavor::Full, Flavor::Narrow]);
        self.world.current(flavor, user)
    }

    /// The writer sees what was written, whatever it asks.
    async fn write(&mut self) -> &'static str {
        let user = self.random.below(USERS);
        let kind = *self.random.pick(self.world.kinds());
        let mode = *self.random.pick(&[Mode::Silent, Mode::Fresh, Mode::Language]);
        let path = format!("/{}/{}/{}", kind.as_str(), mode.as_str(), self.random.below(2));
        let credential = self.credential(user);
        let Some((sent, reply)) = self.post(&path, &credential).await else { return "failed" };
        let number = reply.header("x-number").unwrap().parse().unwrap();
        let name = match owner(&self.world, kind, &sent.asker) {
            // Its `on_write` purges all that the user has.
            Some(owner) if kind == Kind::User && self.world.has_tokens => owner,
            Some(owner) => format!("{owner} {path}"),
            None => path,
        };
        self.world.raise(name, Floor { number, cause: "a write" });
        "write"
    }

    async fn purge(&mut self) -> &'static str {
        let kind = *self.random.pick(self.world.kinds());
        let path = format!("/{}/silent/{}", kind.as_str(), self.random.below(2));
        let user = self.random.below(USERS);
        let (call, name, cause) = match self.random.below(3) {
            0 => (
                format!(r#"{{"tags":["{}"]}}"#, kind.as_str()),
                kind.as_str().to_owned(),
                "a purge by tag",
            ),
            1 if self.world.has_tokens => (
                format!(r#"{{"users":["u{user}"]}}"#),
                format!("user \"u{user}\""),
                "a purge by user",
            ),
            _ => (format!(r#"{{"urls":["http://api.test{path}"]}}"#), path, "a purge by URL"),
        };
        let before = self.world.last_number();
        let call = request_with_body("POST", "/v1/purge", &[TOKEN], &call);
        let mut reply = self.admin(call.clone()).await;
        // If Redis answers late, the outcome is unknown, and callers send the call again.
        while reply.status() == 503 {
            reply = self.admin(call.clone()).await;
        }
        assert_eq!(reply.status(), 200, "{call}: {}", reply.body);
        self.world.raise(name, Floor { number: before, cause });
        "purge"
    }

    async fn log_out(&mut self) -> &'static str {
        let user = self.random.below(USERS);
        let credential = self.credential(user);
        let Some((sent, reply)) = self.post("/account/logout", &credential).await else {
            return "failed";
        };
        self.world.end(&credential, End::LoggedOut(now()));
        let number = reply.header("x-number").unwrap().parse().unwrap();
        if let Some(owner) = owner(&self.world, Kind::User, &sent.asker) {
            self.world.raise(owner, Floor { number, cause: "a logout" });
        }
        self.world.replace(user, &credential);
        "logout"
    }

    /// Only the origin knows of it.
    fn revoke(&mut self) -> &'static str {
        let user = self.random.below(USERS);
        let credential = self.credential(user);
        self.world.end(&credential, End::Revoked(now()));
        self.world.replace(user, &credential);
        "revocation"
    }

    /// Has what the user will ask for fetched ahead.
    async fn log_in(&mut self) -> &'static str {
        let user = self.random.below(USERS);
        let credential = self.credential(user);
        match self.post("/account/login", &credential).await {
            Some(_) => "login",
            None => "failed",
        }
    }

    /// A user loses access to a single resource.
    fn withdraw(&mut self) -> &'static str {
        let kind = *self.random.pick(&[Kind::User, Kind::Tenant, Kind::Member]);
        self.world.withdraw(self.random.below(USERS), &format!("/{}/silent/9", kind.as_str()));
        "withdrawal"
    }
}
