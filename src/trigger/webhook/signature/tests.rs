//! Tests of signatures, with examples from vendors and RFCs.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderValue, header};
use proptest::prelude::*;

use super::{signing_template::SigningTemplateError, *};

const NOW: u64 = 1_531_420_618;

fn form() -> HmacFormat {
    HmacFormat {
        header: HeaderName::from_static("x-signature"),
        prefix: "".into(),
        encoding: Encoding::Hex,
        algorithm: Algorithm::Sha256,
        signed: SigningTemplate::parse("{body}").unwrap(),
        time: None,
    }
}

fn timed() -> HmacFormat {
    let header = HeaderName::from_static("x-time");
    HmacFormat {
        signed: SigningTemplate::parse("v0:{timestamp}:{body}").unwrap(),
        prefix: "v0=".into(),
        time: Some(TimestampHeader { header, tolerance: Duration::from_mins(5) }),
        ..form()
    }
}

fn verify(
    scheme: &SignatureScheme,
    fields: &[(&'static str, &str)],
    body: &[u8],
) -> Result<(), SignatureError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    scheme.verify(&Delivery { headers: &headers, body, now: Timestamp::from_seconds(NOW) })
}

/// Returns the digest of a body under a key, in hexadecimal digits.
fn digest(key: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body);
    const_hex::encode(tag)
}

#[test]
fn published_examples_verify() {
    let jefe = "what do ya want for nothing?";
    let cases = [
        (
            Algorithm::Sha1,
            Encoding::Hex,
            "",
            "Jefe",
            jefe,
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        ),
        (
            Algorithm::Sha256,
            Encoding::Base64,
            "",
            "Jefe",
            jefe,
            "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=",
        ),
        (
            Algorithm::Sha512,
            Encoding::Hex,
            "",
            "Jefe",
            jefe,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
        (
            Algorithm::Sha256,
            Encoding::Hex,
            "sha256=",
            "It's a Secret to Everybody",
            "Hello, World!",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
    ];
    for (algorithm, encoding, prefix, secret, body, signature) in cases {
        let form = HmacFormat { algorithm, encoding, prefix: prefix.into(), ..form() };
        let scheme = SignatureScheme::hmac(form, &[secret]);
        assert_eq!(verify(&scheme, &[("x-signature", signature)], body.as_bytes()), Ok(()));
    }
}

#[test]
fn the_signature_covers_the_signing_time() {
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let scheme = SignatureScheme::hmac(timed(), &["8f742231b10e8888abcd99yyyzzz85a5"]);
    let at = |time: &str| {
        verify(&scheme, &[("x-signature", signature), ("x-time", time)], body.as_bytes())
    };
    assert_eq!(at("1531420618"), Ok(()));
    assert_eq!(at("1531420617"), Err(SignatureError::Mismatch));
}

#[test]
fn a_time_too_far_from_now_is_refused() {
    let scheme = SignatureScheme::hmac(timed(), &["secret"]);
    let at = |time: &str| {
        let signature = format!("v0={}", digest("secret", format!("v0:{time}:body").as_bytes()));
        verify(&scheme, &[("x-signature", &signature), ("x-time", time)], b"body")
    };
    assert_eq!(at(&(NOW - 300).to_string()), Ok(()));
    assert_eq!(at(&(NOW + 300).to_string()), Ok(()));
    assert_eq!(at(&(NOW * 1000 + 299_999).to_string()), Ok(()), "milliseconds");
    assert_eq!(at(&(NOW - 301).to_string()), Err(SignatureError::Timestamp));
    assert_eq!(at(&(NOW + 301).to_string()), Err(SignatureError::Timestamp));
    assert_eq!(
        at("99999999999999999999"),
        Err(SignatureError::MissingField("x-time".parse().unwrap()))
    );
    assert_eq!(at("+1531420618"), Err(SignatureError::MissingField("x-time".parse().unwrap())));
    let untimed = verify(&scheme, &[("x-signature", "v0=00")], b"body");
    assert_eq!(untimed, Err(SignatureError::MissingField("x-time".parse().unwrap())));
}

#[test]
fn every_signature_and_every_secret_is_tried() {
    let scheme = SignatureScheme::hmac(form(), &["new", "old"]);
    for secret in ["new", "old"] {
        let good = digest(secret, b"body");
        let lines = format!("00, {good}");
        assert_eq!(verify(&scheme, &[("x-signature", &lines)], b"body"), Ok(()));
        let fields = [("x-signature", "00"), ("x-signature", &*good.to_uppercase())];
        assert_eq!(verify(&scheme, &fields, b"body"), Ok(()));
    }
    let other = digest("other", b"body");
    assert_eq!(verify(&scheme, &[("x-signature", &other)], b"body"), Err(SignatureError::Mismatch));
}

#[test]
fn malformed_signatures_are_rejected() {
    let scheme =
        SignatureScheme::hmac(HmacFormat { prefix: "sha256=".into(), ..form() }, &["secret"]);
    let good = digest("secret", b"body");
    let unreadable = Err(SignatureError::MissingField("x-signature".parse().unwrap()));
    assert_eq!(verify(&scheme, &[], b"body"), unreadable);
    for value in ["", "sha256=", "sha256=x", "sha256=0", &*good, &*format!("sha1={good}")] {
        assert_eq!(verify(&scheme, &[("x-signature", value)], b"body"), unreadable, "{value}");
    }
    let cut = format!("sha256={}", &good[..62]);
    assert_eq!(verify(&scheme, &[("x-signature", &cut)], b"body"), Err(SignatureError::Mismatch));
}

#[test]
fn a_secret_may_be_sent_along() {
    let scheme = SignatureScheme::bearer(header::AUTHORIZATION, &["new", "old"]);
    for value in ["Bearer new", "bearer old"] {
        assert_eq!(verify(&scheme, &[("authorization", value)], b""), Ok(()));
    }
    assert_eq!(
        verify(&scheme, &[("authorization", "Bearer ol")], b""),
        Err(SignatureError::Mismatch)
    );
    let missing = Err(SignatureError::MissingField(header::AUTHORIZATION));
    assert_eq!(verify(&scheme, &[("authorization", "Basic old")], b""), missing);
    let scheme = SignatureScheme::bearer("x-gitlab-token".parse().unwrap(), &["secret"]);
    assert_eq!(verify(&scheme, &[("x-gitlab-token", "secret")], b""), Ok(()));
    assert_eq!(
        verify(&scheme, &[("x-gitlab-token", "Bearer secret")], b""),
        Err(SignatureError::Mismatch)
    );
}

const SVIX_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SVIX_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const SVIX_BODY: &[u8] = br#"{"test": 2432232314}"#;

/// Verifies Svix's example with these field names, `at` seconds after its signing time.
fn standard(family: [&'static str; 3], signature: &str, at: i64) -> Result<(), SignatureError> {
    let scheme = StandardWebhooks::new(&["c2VjcmV0", SVIX_SECRET], Duration::from_mins(5)).unwrap();
    let values = ["msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", signature];
    let mut headers = HeaderMap::new();
    for (name, value) in family.into_iter().zip(values) {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let now = Timestamp::from_seconds(1_614_265_330_u64.saturating_add_signed(at));
    SignatureScheme::Standard(scheme).verify(&Delivery { headers: &headers, body: SVIX_BODY, now })
}

const STANDARD: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

#[test]
fn the_published_standard_webhook_verifies_with_both_sets_of_names() {
    for family in [STANDARD, ["svix-id", "svix-timestamp", "svix-signature"]] {
        assert_eq!(standard(family, SVIX_SIGNATURE, 300), Ok(()));
        assert_eq!(standard(family, SVIX_SIGNATURE, -300), Ok(()));
        assert_eq!(standard(family, SVIX_SIGNATURE, 301), Err(SignatureError::Timestamp));
        assert_eq!(standard(family, SVIX_SIGNATURE, -301), Err(SignatureError::Timestamp));
    }
    let several = format!("v1a,AAAA v1,AAAA {SVIX_SIGNATURE}");
    assert_eq!(standard(STANDARD, &several, 0), Ok(()));
}

#[test]
fn a_standard_webhook_lacks_no_field_and_mixes_none() {
    let missing =
        |name: &'static str| Err(SignatureError::MissingField(HeaderName::from_static(name)));
    for index in 0..3 {
        let mut family = STANDARD;
        let name = std::mem::replace(&mut family[index], "x-other");
        assert_eq!(standard(family, SVIX_SIGNATURE, 0), missing(name));
    }
    let mixed = ["webhook-id", "svix-timestamp", "svix-signature"];
    assert_eq!(standard(mixed, SVIX_SIGNATURE, 0), missing("webhook-timestamp"));
    let without_version = &SVIX_SIGNATURE[3..];
    for signature in ["", "v1,", without_version, &format!("v1a,{without_version}"), "v1 x"] {
        assert_eq!(standard(STANDARD, signature, 0), missing("webhook-signature"), "{signature}");
    }
    let other = SVIX_SIGNATURE.replace("g0", "g1");
    assert_eq!(standard(STANDARD, &other, 0), Err(SignatureError::Mismatch));
}

#[test]
fn a_standard_secret_is_base64() {
    let is_secret =
        |secret: &str| StandardWebhooks::new(&[secret], Duration::from_mins(5)).is_some();
    assert!(is_secret("whsec_c2VjcmV0") && is_secret("c2VjcmV0"));
    for secret in ["", "whsec_", "whsec_not base64", "c2VjcmV0c"] {
        assert!(!is_secret(secret), "{secret}");
    }
}

#[test]
fn stripe_signs_the_time_with_the_body() {
    let scheme =
        SignatureScheme::Stripe(Stripe::new(&["new", "whsec_old"], Duration::from_mins(5)));
    let sign = |time: u64| digest("whsec_old", format!("{time}.body").as_bytes());
    let verify = |value: &str| verify(&scheme, &[("stripe-signature", value)], b"body");
    let good = sign(NOW);
    for members in [
        format!("t={NOW},v1={good}"),
        format!("t={NOW},v1=00,v1={good},v0=00"),
        format!("v1={good}, t={NOW}"),
    ] {
        assert_eq!(verify(&members), Ok(()), "{members}");
    }
    assert_eq!(verify(&format!("t={},v1={good}", NOW - 1)), Err(SignatureError::Mismatch));
    assert_eq!(verify(&format!("t={NOW},v1=00")), Err(SignatureError::Mismatch));
    for time in [NOW - 301, NOW + 301] {
        assert_eq!(verify(&format!("t={time},v1={}", sign(time))), Err(SignatureError::Timestamp));
    }
    let unreadable = Err(SignatureError::MissingField(HeaderName::from_static("stripe-signature")));
    for members in [
        String::new(),
        good.clone(),
        format!("v1={good}"),
        format!("t={NOW},v0={good}"),
        format!("t=x,v1={good}"),
    ] {
        assert_eq!(verify(&members), unreadable, "{members}");
    }
}

#[test]
fn templates_hold_the_body_once() {
    assert!(!SigningTemplate::parse("{body}").unwrap().has_timestamp());
    assert!(SigningTemplate::parse("{timestamp}.{body}").unwrap().has_timestamp());
    for text in ["", "{timestamp}", "{body}{body}", "body"] {
        assert_eq!(SigningTemplate::parse(text), Err(SigningTemplateError::Body), "{text}");
    }
    for text in ["{id}.{body}", "{body", "{}{body}"] {
        assert_eq!(SigningTemplate::parse(text), Err(SigningTemplateError::Unknown), "{text}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let standard = StandardWebhooks::new(&["hunter2A"], Duration::ZERO).unwrap();
    let schemes = [
        SignatureScheme::bearer(header::AUTHORIZATION, &["hunter2"]),
        SignatureScheme::hmac(form(), &["hunter2"]),
        SignatureScheme::Standard(standard),
        SignatureScheme::Stripe(Stripe::new(&["hunter2"], Duration::ZERO)),
    ];
    for scheme in schemes {
        assert!(!format!("{scheme:?}").contains("hunter2"), "{scheme:?}");
    }
}

proptest! {
    #[test]
    fn an_altered_body_is_refused(
        body in prop::collection::vec(any::<u8>(), 1..64),
        at in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let scheme = SignatureScheme::hmac(form(), &["secret"]);
        let signature = digest("secret", &body);
        prop_assert_eq!(verify(&scheme, &[("x-signature", &signature)], &body), Ok(()));
        let mut altered = body.clone();
        altered[at.index(body.len())] ^= change;
        let verdict = verify(&scheme, &[("x-signature", &signature)], &altered);
        prop_assert_eq!(verdict, Err(SignatureError::Mismatch));
    }

    #[test]
    fn no_field_makes_it_panic(value in "[ -~]{0,40}", base64: bool) {
        let encoding = if base64 { Encoding::Base64 } else { Encoding::Hex };
        let scheme = SignatureScheme::hmac(HmacFormat { encoding, ..timed() }, &["secret"]);
        let fields = [("x-signature", &*value), ("x-time", &*value)];
        prop_assert!(verify(&scheme, &fields, b"body").is_err());
        let scheme = SignatureScheme::Stripe(Stripe::new(&["secret"], Duration::from_mins(5)));
        let value = format!("t={NOW},v1={value}");
        prop_assert!(verify(&scheme, &[("stripe-signature", &value)], b"body").is_err());
    }
}
