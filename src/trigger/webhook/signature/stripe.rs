//! The signature scheme of Stripe.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};

use super::{
    delivery::{Delivery, MAX_DIGESTS, SignatureError, check_timestamp, verify_digests},
    encoding::Encoding,
};

const HEADER: HeaderName = HeaderName::from_static("stripe-signature");

/// The scheme of Stripe: an HMAC-SHA256 of `{t}.{body}`, in hexadecimal digits.
///
/// Time and digests are in `Stripe-Signature: t=…,v1=…`. The key is the secret's text, including
/// `whsec_`.
#[derive(Clone)]
pub struct Stripe {
    keys: Vec<hmac::Key>,
    tolerance: Duration,
}

impl Stripe {
    pub fn new(secrets: &[&str], tolerance: Duration) -> Self {
        let key = |secret: &&str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { keys: secrets.iter().map(key).collect(), tolerance }
    }

    /// Returns the time and the digests of a delivery.
    pub(super) fn fields<'a>(
        &self,
        delivery: &Delivery<'a>,
    ) -> Result<(&'a str, Vec<Vec<u8>>), SignatureError> {
        let unreadable = || SignatureError::MissingField(HEADER);
        let timestamp = members(delivery.headers, "t").next().ok_or_else(unreadable)?;
        let digests: Vec<Vec<u8>> = members(delivery.headers, "v1")
            .filter_map(|digest| Encoding::Hex.decode(digest))
            .take(MAX_DIGESTS)
            .collect();
        if digests.is_empty() {
            return Err(unreadable());
        }
        check_timestamp(timestamp, delivery.now, self.tolerance, &HEADER)?;
        Ok((timestamp, digests))
    }

    pub(super) fn verify(&self, delivery: &Delivery<'_>) -> Result<(), SignatureError> {
        let (timestamp, digests) = self.fields(delivery)?;
        verify_digests(&self.keys, &digests, |context| {
            for part in [timestamp.as_bytes(), b".", delivery.body] {
                context.update(part);
            }
        })
    }
}

/// Returns the values with this name in `Stripe-Signature`.
fn members<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(HEADER).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .filter_map(|member| member.trim().split_once('='))
        .filter_map(move |(given, value)| (given == name).then_some(value))
}
