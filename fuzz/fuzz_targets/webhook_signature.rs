//! Whatever fields and body a delivery has, it counts only if it is signed with the secret, for this body
//! and this time.
#![no_main]

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue};
use larder::testing::{
    field::Timestamp,
    trigger::webhook::{Delivery, SignatureScheme, DEFAULT_TOLERANCE, Vendor},
};
use libfuzzer_sys::fuzz_target;

/// The fields in which senders prove something.
const FIELDS: [&str; 11] = [
    "authorization",
    "stripe-signature",
    "svix-id",
    "svix-signature",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-gitlab-token",
    "x-hub-signature-256",
    "x-shopify-hmac-sha256",
    "x-slack-signature",
];

fuzz_target!(|input: (Vec<(u8, &[u8])>, u32, &[u8])| {
    let (fields, seconds, body) = input;
    let mut headers = HeaderMap::new();
    for (name, value) in fields.into_iter().take(16) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(FIELDS[usize::from(name) % FIELDS.len()], value);
        }
    }
    // No input can hold a secret that is made from all of it.
    let secret = STANDARD.encode(sign(b"seed", format!("{headers:?}{seconds}{body:?}").as_bytes()));
    for vendor in Vendor::ALL {
        let scheme = vendor.scheme(&[&secret], DEFAULT_TOLERANCE).expect("a secret for all of them");
        assert!(!counts(&scheme, &headers, body, seconds), "{vendor:?} takes what is not signed");
        let Some(signed) = signed(vendor, &headers, (&secret, body, seconds)) else { continue };
        assert!(counts(&scheme, &signed, body, seconds), "{vendor:?} refuses what is signed");
        let altered = [body, b"."].concat();
        assert!(!counts(&scheme, &signed, &altered, seconds), "{vendor:?}: another body");
        if vendor.signs_time() {
            let late = seconds.saturating_add(1000);
            assert!(late == u32::MAX || !counts(&scheme, &signed, body, late), "{vendor:?}: late");
        }
    }
});

fn counts(scheme: &SignatureScheme, headers: &HeaderMap, body: &[u8], seconds: u32) -> bool {
    let now = Timestamp::from_seconds(seconds.into());
    scheme.verify(&Delivery { headers, body, now }).is_ok()
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fields with those of a delivery that this vendor has signed.
fn signed(
    vendor: Vendor,
    headers: &HeaderMap,
    (secret, body, seconds): (&str, &[u8], u32),
) -> Option<HeaderMap> {
    let mut headers = headers.clone();
    let mut set = |name: &'static str, value: String| {
        headers.insert(name, value.parse().expect("a value"));
    };
    match vendor {
        Vendor::GitHub => {
            set("x-hub-signature-256", format!("sha256={}", hex(&sign(secret.as_bytes(), body))));
        }
        Vendor::Shopify => {
            set("x-shopify-hmac-sha256", STANDARD.encode(sign(secret.as_bytes(), body)));
        }
        Vendor::Stripe => {
            let message = [format!("{seconds}.").as_bytes(), body].concat();
            let digest = hex(&sign(secret.as_bytes(), &message));
            set("stripe-signature", format!("t={seconds},v0=00,v1={digest}"));
        }
        Vendor::Standard => {
            let key = STANDARD.decode(secret).expect("it is base64");
            let message = [format!("a.{seconds}.").as_bytes(), body].concat();
            set("webhook-id", "a".into());
            set("webhook-timestamp", seconds.to_string());
            set("webhook-signature", format!("v1,{}", STANDARD.encode(sign(&key, &message))));
        }
        Vendor::GitLab => set("x-gitlab-token", secret.into()),
        Vendor::Slack => return None,
    }
    (vendor != Vendor::GitLab).then_some(headers)
}
