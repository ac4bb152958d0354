//! Vendor presets for webhooks: signature schemes, and locations of event names and delivery ids.
//! Pure.

use std::time::Duration;

use http::HeaderName;

use super::{
    mapping::ValueLocation,
    signature::{
        Algorithm, Encoding, HmacFormat, SignatureScheme, SignedPart, SigningTemplate,
        StandardWebhooks, Stripe, TimestampHeader,
    },
};
use crate::route::json_path;

/// The default tolerance for signing times.
pub const DEFAULT_TOLERANCE: Duration = Duration::from_mins(5);

/// A webhook vendor with a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Standard Webhooks, as sent by Svix and compatible senders.
    Standard,
    /// GitHub. Signs only the body, not the id, the event or the time.
    GitHub,
    /// Stripe.
    Stripe,
    /// Shopify. Signs only the body, not the id, the topic or the time.
    Shopify,
    /// Slack's Events API.
    Slack,
    /// GitLab. Sends the secret itself, without a signature.
    GitLab,
}

impl Vendor {
    /// All vendors.
    pub const ALL: [Self; 6] =
        [Self::Standard, Self::GitHub, Self::Stripe, Self::Shopify, Self::Slack, Self::GitLab];

    /// Returns the name of the vendor in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::GitHub => "github",
            Self::Stripe => "stripe",
            Self::Shopify => "shopify",
            Self::Slack => "slack",
            Self::GitLab => "gitlab",
        }
    }

    /// Returns whether deliveries contain a signed time.
    pub const fn signs_time(self) -> bool {
        matches!(self, Self::Standard | Self::Stripe | Self::Slack)
    }

    /// Creates the signature scheme. `None` if a secret is invalid for this vendor.
    pub fn scheme(self, secrets: &[&str], tolerance: Duration) -> Option<SignatureScheme> {
        Some(match self {
            Self::Standard => SignatureScheme::Standard(StandardWebhooks::new(secrets, tolerance)?),
            Self::Stripe => SignatureScheme::Stripe(Stripe::new(secrets, tolerance)),
            Self::GitLab => {
                SignatureScheme::bearer(HeaderName::from_static("x-gitlab-token"), secrets)
            }
            Self::GitHub => SignatureScheme::hmac(github(), secrets),
            Self::Shopify => SignatureScheme::hmac(shopify(), secrets),
            Self::Slack => SignatureScheme::hmac(slack(tolerance), secrets),
        })
    }

    /// Returns the location of the event name, if deliveries contain one.
    pub fn event(self) -> Option<ValueLocation> {
        match self {
            Self::Standard | Self::Stripe => payload("$.type"),
            Self::Slack => payload("$.event.type"),
            Self::GitHub => Some(header("x-github-event")),
            Self::Shopify => Some(header("x-shopify-topic")),
            Self::GitLab => Some(header("x-gitlab-event")),
        }
    }

    /// Returns the locations of the delivery id; the first location with a value counts. Repeated
    /// deliveries have the same id.
    pub fn ids(self) -> Vec<ValueLocation> {
        let location = match self {
            Self::Standard => return StandardWebhooks::ids().map(ValueLocation::Header).into(),
            Self::Stripe => payload("$.id"),
            Self::Slack => payload("$.event_id"),
            Self::GitHub => Some(header("x-github-delivery")),
            Self::Shopify => Some(header("x-shopify-webhook-id")),
            // Not `X-Gitlab-Event-UUID`, which is the same for deliveries that trigger each other.
            Self::GitLab => Some(header("idempotency-key")),
        };
        location.into_iter().collect()
    }
}

fn header(name: &'static str) -> ValueLocation {
    ValueLocation::Header(HeaderName::from_static(name))
}

fn payload(path: &str) -> Option<ValueLocation> {
    json_path::parse(path).ok().map(ValueLocation::Payload)
}

/// Returns GitHub's format: SHA-256 in hexadecimal digits. The older `X-Hub-Signature` is ignored.
fn github() -> HmacFormat {
    HmacFormat {
        header: HeaderName::from_static("x-hub-signature-256"),
        prefix: "sha256=".into(),
        encoding: Encoding::Hex,
        algorithm: Algorithm::Sha256,
        signed: SigningTemplate::of([SignedPart::Body]),
        time: None,
    }
}

fn shopify() -> HmacFormat {
    HmacFormat {
        header: HeaderName::from_static("x-shopify-hmac-sha256"),
        prefix: "".into(),
        encoding: Encoding::Base64,
        ..github()
    }
}

fn slack(tolerance: Duration) -> HmacFormat {
    let literal = |text: &str| SignedPart::Literal(text.into());
    let header = HeaderName::from_static("x-slack-request-timestamp");
    HmacFormat {
        header: HeaderName::from_static("x-slack-signature"),
        prefix: "v0=".into(),
        signed: SigningTemplate::of([
            literal("v0:"),
            SignedPart::Timestamp,
            literal(":"),
            SignedPart::Body,
        ]),
        time: Some(TimestampHeader { header, tolerance }),
        ..github()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        field::Timestamp,
        trigger::webhook::{
            Delivery, DeliveryAction, DeliveryError, EventMapping, Handshake, MappedPurges,
            SignatureError, Webhook,
        },
    };

    const NOW: u64 = 1_531_420_618;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn verify(
        vendor: Vendor,
        secret: &str,
        fields: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<(), SignatureError> {
        let scheme = vendor.scheme(&["c2VjcmV0", secret], DEFAULT_TOLERANCE).unwrap();
        let now = Timestamp::from_seconds(NOW);
        scheme.verify(&Delivery { headers: &headers(fields), body, now })
    }

    #[test]
    fn examples_from_vendor_documentation_verify() {
        let github = (
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        );
        let secret = "It's a Secret to Everybody";
        assert_eq!(verify(Vendor::GitHub, secret, &[github], b"Hello, World!"), Ok(()));
        let body = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let slack = [
            (
                "x-slack-signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            ),
            ("x-slack-request-timestamp", "1531420618"),
        ];
        let secret = "8f742231b10e8888abcd99yyyzzz85a5";
        assert_eq!(verify(Vendor::Slack, secret, &slack, body), Ok(()));
        let untimed = verify(Vendor::Slack, secret, &slack[..1], body);
        assert_eq!(
            untimed,
            Err(SignatureError::MissingField("x-slack-request-timestamp".parse().unwrap()))
        );
        let shopify = ("x-shopify-hmac-sha256", "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
        let body = b"what do ya want for nothing?";
        assert_eq!(verify(Vendor::Shopify, "Jefe", &[shopify], body), Ok(()));
        assert_eq!(verify(Vendor::GitLab, "Jefe", &[("x-gitlab-token", "Jefe")], body), Ok(()));
        assert_eq!(
            verify(Vendor::GitLab, "Jefe", &[("x-gitlab-token", "jefe")], body),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn what_github_signed_with_sha_1_alone_counts_for_nothing() {
        let fields = [("x-hub-signature", "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")];
        let refused = verify(Vendor::GitHub, "Jefe", &fields, b"what do ya want for nothing?");
        assert_eq!(
            refused,
            Err(SignatureError::MissingField("x-hub-signature-256".parse().unwrap()))
        );
    }

    /// Returns the event name and the delivery id.
    fn event_and_id(
        vendor: Vendor,
        fields: &[(&'static str, &str)],
        payload: &Value,
    ) -> [String; 2] {
        let headers = headers(fields);
        let id = vendor.ids().iter().find_map(|location| location.read(&headers, payload));
        [vendor.event().unwrap().read(&headers, payload).unwrap(), id.unwrap()]
    }

    #[test]
    fn each_vendor_has_an_event_and_a_delivery_id() {
        let typed = json!({ "type": "e", "id": "i" });
        for names in [["webhook-id", "svix-id"], ["svix-id", "x-other"]] {
            let fields = [(names[0], "i"), (names[1], "j")];
            assert_eq!(event_and_id(Vendor::Standard, &fields, &typed), ["e", "i"]);
        }
        assert_eq!(event_and_id(Vendor::Stripe, &[], &typed), ["e", "i"]);
        let slack = json!({ "type": "event_callback", "event": { "type": "e" }, "event_id": "i" });
        assert_eq!(event_and_id(Vendor::Slack, &[], &slack), ["e", "i"]);
        for (vendor, event, id) in [
            (Vendor::GitHub, "x-github-event", "x-github-delivery"),
            (Vendor::Shopify, "x-shopify-topic", "x-shopify-webhook-id"),
            (Vendor::GitLab, "x-gitlab-event", "idempotency-key"),
        ] {
            assert_eq!(event_and_id(vendor, &[(event, "e"), (id, "i")], &typed), ["e", "i"]);
        }
    }

    #[test]
    fn a_signed_challenge_from_slack_is_returned() {
        let scheme = SignatureScheme::bearer("x-token".parse().unwrap(), &["secret"]);
        let mapping = EventMapping { event: None, rules: Box::new([]) };
        let ids = Vendor::Slack.ids().into();
        let webhook =
            Webhook { name: "slack".into(), scheme, mapping, ids, handshake: Handshake::Slack };
        let plan = |token: &str, payload: Value| {
            let (headers, body) = (headers(&[("x-token", token)]), payload.to_string());
            let now = Timestamp::from_seconds(NOW);
            let delivery = Delivery { headers: &headers, body: body.as_bytes(), now };
            webhook.plan(&delivery, &|_, _| Vec::new())
        };
        let asked = json!({ "type": "url_verification", "challenge": "3eZbrw1a" });
        assert_eq!(
            plan("secret", asked.clone()),
            Ok(DeliveryAction::Challenge("3eZbrw1a".to_owned()))
        );
        assert_eq!(plan("other", asked), Err(DeliveryError::Unverified(SignatureError::Mismatch)));
        let mapped = MappedPurges { purges: Vec::new(), rules: 0, unfilled: 0 };
        let id = Some("Ev1".to_owned());
        let news = json!({ "type": "event_callback", "challenge": "x", "event_id": "Ev1" });
        assert_eq!(plan("secret", news), Ok(DeliveryAction::Purge { mapped, id }));
    }
}
