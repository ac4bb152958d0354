//! Webhooks: `POST /_larder/webhooks/{name}` purges responses after an external event.
//!
//! `signature` verifies a delivery, and `mapping` maps it to purges; both modules are pure. A body
//! is parsed only after its signature has been verified.

pub(crate) mod mapping;
pub(crate) mod signature;
pub(crate) mod template;
pub(crate) mod vendor;

use http::StatusCode;
use serde_json::Value;

pub(crate) use mapping::{
    EventMapping, MappedPurges, MappingRule, PayloadCondition, ValueLocation,
};
pub(crate) use signature::{
    Algorithm, Encoding, HeaderProof, HmacFormat, SignatureError, SigningTemplate, TimestampHeader,
};
pub use signature::{Delivery, SignatureScheme};
pub(crate) use template::{PayloadTemplate, TooManyTags};
pub use vendor::{DEFAULT_TOLERANCE, Vendor};

use crate::{parsing, problem::Problem, trigger::selector::OwnerLookup};

/// The prefix of webhook paths, followed by a name.
pub(super) const PATH_PREFIX: &str = "/_larder/webhooks/";

/// A webhook: how its deliveries are verified and mapped to purges.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The name, which is the last segment of the webhook's path.
    pub name: Box<str>,
    /// The signature scheme of the webhook's deliveries.
    pub scheme: SignatureScheme,
    /// The mapping from events to purges.
    pub mapping: EventMapping,
    /// The locations of the delivery id; the first location with a value counts. A delivery with a
    /// known id does not purge again.
    pub ids: Box<[ValueLocation]>,
    /// The handshake that the sender requires.
    pub handshake: Handshake,
}

/// The handshake before a sender delivers events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Handshake {
    #[default]
    None,
    /// Slack's `url_verification`, to which Larder responds with the challenge.
    Slack,
}

/// The action that a verified delivery requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryAction {
    /// Run the purges of an event.
    Purge {
        /// The purges of the event.
        mapped: MappedPurges,
        /// The delivery id, if the delivery has one.
        id: Option<String>,
    },
    /// Respond with this challenge.
    Challenge(String),
}

/// The reasons why a delivery purges nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryError {
    /// The signature could not be verified: 401.
    Unverified(SignatureError),
    /// The body is not JSON: 400.
    Malformed,
    /// The delivery would purge too many tags: 413.
    TooMany,
    /// The delivery could not be parsed in time: 503.
    Busy,
}

impl Webhook {
    /// Verifies a delivery, and returns the action that it requires.
    pub fn plan(
        &self,
        delivery: &Delivery<'_>,
        owners: &OwnerLookup,
    ) -> Result<DeliveryAction, DeliveryError> {
        self.scheme.verify(delivery).map_err(DeliveryError::Unverified)?;
        let payload = parsing::parse(delivery.body).map_err(|_| DeliveryError::Malformed)?;
        if let Some(challenge) = self.handshake.challenge(&payload) {
            return Ok(DeliveryAction::Challenge(challenge.to_owned()));
        }
        let headers = delivery.headers;
        let mapped = self.mapping.apply(&self.name, (headers, &payload), owners);
        let mapped = mapped.map_err(|TooManyTags| DeliveryError::TooMany)?;
        let id = self.ids.iter().find_map(|location| location.read(headers, &payload));
        Ok(DeliveryAction::Purge { mapped, id: id.filter(|id| !id.is_empty()) })
    }
}

impl Handshake {
    fn challenge(self, payload: &Value) -> Option<&str> {
        let is_asked = self == Self::Slack && payload.get("type")? == "url_verification";
        payload.get("challenge").filter(|_| is_asked)?.as_str()
    }
}

impl DeliveryError {
    /// Returns the value of the metric label for the error.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unverified(_) => "refused",
            Self::Malformed => "malformed",
            Self::TooMany => "too-large",
            Self::Busy => "unavailable",
        }
    }

    /// Returns the response to the sender.
    pub fn problem(&self) -> Problem {
        let (status, title, detail) = match self {
            Self::Unverified(error) => {
                let detail = format!("The signature could not be verified: {error}.");
                (StatusCode::UNAUTHORIZED, "Invalid signature", detail)
            }
            Self::Malformed => {
                let detail = "The body is not JSON; deliver events as JSON.".to_owned();
                (StatusCode::BAD_REQUEST, "Malformed delivery", detail)
            }
            Self::TooMany => {
                let detail = "This delivery would purge more tags than one purge may. Deliver fewer events at once, or purge by a tag that they share.";
                (StatusCode::PAYLOAD_TOO_LARGE, "Too many tags", detail.to_owned())
            }
            Self::Busy => {
                let detail =
                    "The delivery could not be parsed in time; deliver it again in a moment.";
                (StatusCode::SERVICE_UNAVAILABLE, "Too busy", detail.to_owned())
            }
        };
        Problem::new(status, title, detail)
    }
}
