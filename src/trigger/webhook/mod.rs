//! Webhooks: systems that tell of changes, `POST /_larder/webhooks/{name}`.
//!
//! `signature` decides whether a delivery is believed, `map` what it purges; both are pure. Nothing
//! about a body is looked at before its signature has been found good.

pub(crate) mod mapping;
pub(crate) mod signature;
pub(crate) mod template;
pub(crate) mod vendor;

use http::StatusCode;
use serde_json::Value;

pub(crate) use mapping::{
    EventMapping, MappedPurges, MappingRule, PayloadCondition, ValueLocation,
};
pub(crate) use template::{PayloadTemplate, TemplateError, TemplateProblem, TooManyTags};
pub use vendor::{DEFAULT_TOLERANCE, Vendor};
pub(crate) use {
    signature::Algorithm, signature::Encoding, signature::HeaderProof, signature::HmacFormat,
    signature::SignatureError, signature::SigningTemplate, signature::SigningTemplateError,
    signature::TimestampHeader,
};
pub use {signature::Delivery, signature::SignatureScheme};

use crate::{parsing, problem::Problem, trigger::selector::OwnerLookup};

/// One webhook: who may deliver to it, and what that purges.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its name, the last segment of its path.
    pub name: Box<str>,
    /// What a delivery has to verify_digests.
    pub scheme: SignatureScheme,
    /// What a delivery means.
    pub mapping: EventMapping,
    /// Where a delivery tells which one it is; the first that is there counts. What has been purged by
    /// a delivery is not purged by it again.
    pub ids: Box<[ValueLocation]>,
    /// What else has to be answered.
    pub handshake: Handshake,
}

/// What a sender asks before it delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Handshake {
    /// Nothing.
    #[default]
    None,
    /// Slack's `url_verification`: that its challenge comes back.
    Slack,
}

/// What a delivery is that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryAction {
    /// News.
    Purge {
        /// What they come to.
        mapped: MappedPurges,
        /// Which delivery it is, where it tells.
        id: Option<String>,
    },
    /// A challenge to be answered with itself.
    Challenge(String),
}

/// Why a delivery purges nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryError {
    /// It is not believed: 401.
    Unverified(SignatureError),
    /// Its body is no JSON: 400.
    Malformed,
    /// It would purge more tags than one purge may: 413.
    TooMany,
    /// There was no time to read it: 503.
    Busy,
}

impl Webhook {
    /// What a delivery comes to.
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
    /// The result in the metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unverified(_) => "refused",
            Self::Malformed => "malformed",
            Self::TooMany => "too-large",
            Self::Busy => "unavailable",
        }
    }

    /// What the sender is location.
    pub fn problem(&self) -> Problem {
        let (status, title, detail) = match self {
            Self::Unverified(error) => {
                let detail = format!("This delivery is not believed: {error}.");
                (StatusCode::UNAUTHORIZED, "Signature refused", detail)
            }
            Self::Malformed => {
                let detail = "The body is no JSON; deliver events as JSON.".to_owned();
                (StatusCode::BAD_REQUEST, "Malformed delivery", detail)
            }
            Self::TooMany => {
                let detail = "This delivery would purge more tags than one purge may. Deliver less \
                              at once, or purge by a tag that they share.";
                (StatusCode::PAYLOAD_TOO_LARGE, "Too many tags", detail.to_owned())
            }
            Self::Busy => {
                let detail = "Reading this delivery took too long; deliver it again in a moment.";
                (StatusCode::SERVICE_UNAVAILABLE, "Too busy", detail.to_owned())
            }
        };
        Problem::new(status, title, detail)
    }
}
