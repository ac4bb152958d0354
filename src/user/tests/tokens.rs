//! Tests of signed tokens.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn a_signed_token_proves_who_asks() {
    let users = by_secret();
    let payload = r#"{"iss":"https://issuer","sub":"u1","exp":1700000001}"#;
    let headers = bearing(&token(payload));
    for _ in 0..2 {
        let member = user_of(&users, &headers).unwrap();
        assert_eq!(member.user.as_deref(), Some("u1"));
        assert_eq!(&*member.issuer, "https://issuer");
        assert_eq!(member.expires, Some(Timestamp::from_seconds(1_700_000_001)));
        assert_eq!(member.owner, Some(users.owner("https://issuer", "u1")));
    }
}

#[test]
fn a_remembered_token_ends_with_its_exp() {
    let users = by_secret();
    let headers = bearing(&token(r#"{"sub":"u1","exp":1700000001}"#));
    let at = |millis| {
        let now = NOW.saturating_add(Duration::from_millis(millis));
        users
            .identify_with_cause(&Partition::User, (&headers, None), now)
            .map(|member| member.user.clone())
    };
    assert!(at(0).is_ok() && at(999).is_ok());
    for _ in 0..2 {
        assert_eq!(at(1000), Err(IdentityError::Expired));
    }
}

/// Each invalid token is forwarded unchanged and affects no stored response.
#[test]
fn what_is_no_valid_token_proves_nothing() {
    let users = by_secret();
    let good = token(r#"{"sub":"u1"}"#);
    let head = |header: &str| signed_with(SECRET, header, r#"{"sub":"u1"}"#);
    let unsigned = format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded(r#"{"sub":"u1"}"#));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let cases = [
        (unsigned, IdentityError::Algorithm),
        (head(r#"{"alg":"none"}"#), IdentityError::Algorithm),
        (head(r#"{"alg":"hs256"}"#), IdentityError::Algorithm),
        (head(r#"{"alg":"RS256"}"#), IdentityError::Algorithm),
        (head(r#"{"alg":"HS512"}"#), IdentityError::Signature),
        (head(r"{}"), IdentityError::Algorithm),
        (head(r#"{"alg":["HS256"]}"#), IdentityError::Algorithm),
        (head(r#"{"alg":"HS256","alg":"none"}"#), IdentityError::Form),
        (head(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","crit":[]}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","jku":"https://evil"}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","x5u":"https://evil"}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","jwk":{}}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","x5c":[]}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","b64":false}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","typ":"dpop+jwt"}"#), IdentityError::Header),
        (head(r#"{"alg":"HS256","kid":1}"#), IdentityError::Header),
        (head("no JSON"), IdentityError::Form),
        (
            signed_with(b"another secret", r#"{"alg":"HS256"}"#, r#"{"sub":"u1"}"#),
            IdentityError::Signature,
        ),
        (format!("{message}."), IdentityError::Signature),
        (format!("{message}.{}", &signature[..40]), IdentityError::Signature),
        (format!("{good}="), IdentityError::Form),
        (format!("{good} "), IdentityError::Form),
        (format!("{good}x"), IdentityError::Signature),
        (format!("{good}.{signature}.{signature}"), IdentityError::Form),
        (message.to_owned(), IdentityError::Form),
        (String::from(".."), IdentityError::Form),
        (format!("{good}{}", "A".repeat(8 << 10)), IdentityError::TooLong),
        (token(r#"{"sub":"u1","sub":"u2"}"#), IdentityError::Claims),
        (token(r#"{"sub":"u1","a":1,"\u0061":1}"#), IdentityError::Claims),
        (token(r#"["sub","u1"]"#), IdentityError::Claims),
        (token("\"u1\""), IdentityError::Claims),
        (token(""), IdentityError::Claims),
        (token(r#"{"sub":"u1","exp":1700000000}"#), IdentityError::Expired),
        (token(r#"{"sub":"u1","exp":1700000000.9}"#), IdentityError::Expired),
        (token(r#"{"sub":"u1","exp":"1800000000"}"#), IdentityError::Claims),
        (token(r#"{"sub":"u1","exp":null}"#), IdentityError::Claims),
        (token(r#"{"sub":"u1","exp":-1}"#), IdentityError::Claims),
        (token(r#"{"sub":"u1","nbf":1700000061}"#), IdentityError::NotYet),
        (token(r#"{"sub":"u1","iat":1700000061}"#), IdentityError::NotYet),
        (token(r#"{"sub":"u1","cnf":{"jkt":"x"}}"#), IdentityError::Bound),
        (token(r#"{"sub":"u1","iss":1}"#), IdentityError::Claims),
    ];
    for (token, expected) in cases {
        for _ in 0..2 {
            let found = user_of(&users, &bearing(&token)).map(|_| ());
            assert_eq!(found, Err(expected), "{token}");
        }
    }
}

#[test]
fn a_token_has_one_spelling() {
    let users = by_secret();
    let good = token(r#"{"sub":"u1"}"#);
    assert!(user_of(&users, &bearing(&good)).is_ok());
    let last = good.chars().last().unwrap();
    for other in ('A'..='Z').chain('a'..='z').chain('0'..='9').filter(|other| *other != last) {
        let respelt = format!("{}{other}", &good[..good.len() - 1]);
        let found = user_of(&users, &bearing(&respelt)).map(|_| ());
        assert!(matches!(found, Err(IdentityError::Form | IdentityError::Signature)), "{respelt}");
    }
}

#[test]
fn clocks_may_differ_by_a_minute_but_not_over_the_end() {
    let users = by_secret();
    for payload in [
        r#"{"sub":"u1","nbf":1700000060,"iat":1700000060}"#,
        r#"{"sub":"u1","exp":1700000001}"#,
        r#"{"sub":"u1","exp":1.800000000e9}"#,
    ] {
        assert!(user_of(&users, &bearing(&token(payload))).is_ok(), "{payload}");
    }
}

#[test]
fn a_field_that_is_not_one_bearer_token_proves_nothing() {
    let users = by_secret();
    let bearer = format!("Bearer {}", token(r#"{"sub":"u1"}"#));
    let lower = bearer.replacen("Bearer", "bearer", 1);
    assert!(user_of(&users, &fields(&[("authorization", &lower)])).is_ok());
    for (lines, expected) in [
        (vec![], IdentityError::NoToken),
        (vec![("authorization", "Basic dTE6cHc=")], IdentityError::Scheme),
        (vec![("authorization", bearer.trim_start_matches("Bearer "))], IdentityError::Scheme),
        (vec![("authorization", "Bearer")], IdentityError::Scheme),
        (vec![("authorization", "Bearer ")], IdentityError::Form),
        (vec![("authorization", "")], IdentityError::Scheme),
        (vec![("authorization", &bearer), ("authorization", &bearer)], IdentityError::Twice),
        (vec![("authorization", &bearer), ("dpop", "e30.e30.e30")], IdentityError::Bound),
        (vec![("authorization", &bearer), ("signature", "a=:AA==:")], IdentityError::Bound),
        (vec![("authorization", &bearer), ("signature-input", "a=()")], IdentityError::Bound),
        (vec![("authorization", &bearer.replacen("Bearer", "DPoP", 1))], IdentityError::Scheme),
    ] {
        let found = user_of(&users, &fields(&lines)).map(|_| ());
        assert_eq!(found, Err(expected), "{lines:?}");
    }
}

#[test]
fn a_claim_that_names_nobody_is_no_identity() {
    let users = by_secret();
    for payload in [
        r"{}",
        r#"{"sub":""}"#,
        r#"{"sub":null}"#,
        r#"{"sub":["u1"]}"#,
        r#"{"sub":{"a":1}}"#,
        r#"{"sub":1.5}"#,
        r#"{"sub":"u1\n"}"#,
    ] {
        let found = user_of(&users, &bearing(&token(payload)));
        assert_eq!(found.map(|_| ()), Err(IdentityError::NoClaim), "{payload}");
    }
}

#[test]
fn no_two_identities_share_a_partition() {
    let users = by_secret();
    let payloads = [
        r#"{"sub":"u1"}"#,
        r#"{"sub":"u2"}"#,
        r#"{"sub":"U1"}"#,
        r#"{"sub":"42"}"#,
        r#"{"sub":42}"#,
        r#"{"sub":true}"#,
        r#"{"sub":"true"}"#,
        r#"{"sub":"u1","iss":"a"}"#,
        r#"{"sub":"u1","iss":"b"}"#,
        r#"{"sub":"u1","scope":"read"}"#,
        r#"{"sub":"u1","scope":"read write"}"#,
        r#"{"sub":"u1","roles":["admin"]}"#,
        r#"{"sub":"u1","aud":"a"}"#,
        r#"{"sub":"u1","act":{"sub":"u2"}}"#,
    ];
    let parts: std::collections::HashSet<_> = payloads
        .iter()
        .map(|payload| member(&users, &Partition::User, payload).partition_digest)
        .collect();
    assert_eq!(parts.len(), payloads.len());
}

#[test]
fn one_user_is_one_member_whatever_does_not_narrow_it() {
    let users = by_secret();
    let part = |payload| member(&users, &Partition::User, payload).partition_digest;
    let one = r#"{"sub":"u1","jti":"1","exp":1800000000,"scope":"a b"}"#;
    assert_eq!(part(one), part(r#"{"jti":"2","scope":["b","a"],"sub":"\u00751"}"#));
}

#[test]
fn a_user_is_purged_whatever_narrows_it() {
    let mut rules = rules([VerificationKey::secret(SECRET)]);
    rules.issuers = ["a".into(), "b".into()].into();
    let users = users(rules);
    let owner = |payload| member(&users, &Partition::User, payload).owner.clone();
    let expected = Some(users.owner("a", "42"));
    for payload in [r#"{"iss":"a","sub":"42"}"#, r#"{"iss":"a","sub":42,"scope":"x"}"#] {
        assert_eq!(owner(payload), expected);
    }
    assert_ne!(owner(r#"{"iss":"b","sub":"42"}"#), expected);
}

#[test]
fn a_user_is_purged_under_any_issuer_where_none_is_named() {
    let users = by_secret();
    let owner = |payload| member(&users, &Partition::User, payload).owner.clone().unwrap();
    for payload in [r#"{"iss":"a","sub":"42"}"#, r#"{"iss":"b","sub":"42"}"#, r#"{"sub":"42"}"#] {
        assert_eq!(users.owners(None, "42"), [owner(payload)]);
        assert_eq!(users.owners(Some("c"), "42"), [owner(payload)]);
    }
}

#[test]
fn kinds_of_partitions_share_nothing() {
    let users = by_secret();
    let payload = r#"{"sub":"t1","tenant":"t1","plan":"t1"}"#;
    let partitions = [
        Partition::User,
        Partition::Authenticated,
        claims(&["tenant"]),
        claims(&["tenant", "plan"]),
    ];
    let members = partitions.map(|partition| member(&users, &partition, payload));
    for (place, one) in members.iter().enumerate() {
        for other in members.iter().skip(place + 1) {
            assert_ne!(one.partition_digest, other.partition_digest);
            assert_ne!(one.owner, other.owner);
        }
    }
    assert_eq!(members[1].owner, None);
}

#[test]
fn users_with_the_same_claims_share_a_partition_of_claims() {
    let users = by_secret();
    let part = |payload| member(&users, &claims(&["tenant"]), payload).partition_digest;
    let one = part(r#"{"sub":"u1","tenant":"t1","narrow":1}"#);
    assert_eq!(one, part(r#"{"sub":"u2","tenant":"t1"}"#));
    assert_ne!(one, part(r#"{"sub":"u1","tenant":"t2"}"#));
    assert_ne!(one, part(r#"{"sub":"u1","tenant":"t1","scope":"x"}"#));
    let missing = bearing(&token(r#"{"sub":"u1"}"#));
    let found = users.identify_with_cause(&claims(&["tenant"]), (&missing, None), NOW);
    assert_eq!(found.map(|_| ()), Err(IdentityError::NoClaim));
}

#[test]
fn those_with_the_same_rights_are_one_under_authenticated() {
    let users = by_secret();
    let part = |payload| member(&users, &Partition::Authenticated, payload).partition_digest;
    assert_eq!(part(r#"{"sub":"u1"}"#), part(r"{}"));
    assert_ne!(part(r#"{"sub":"u1"}"#), part(r#"{"sub":"u1","roles":["admin"]}"#));
    assert_ne!(part(r#"{"sub":"u1"}"#), part(r#"{"sub":"u1","iss":"a"}"#));
}

#[test]
fn issuer_and_audience_count_if_they_are_set() {
    let mut rules = rules([VerificationKey::secret(SECRET)]);
    rules.audiences = ["api".into(), "web".into()].into();
    rules.issuers = ["https://issuer".into()].into();
    let users = users(rules);
    for (payload, expected) in [
        (r#"{"sub":"u","iss":"https://issuer","aud":"api"}"#, Ok(())),
        (r#"{"sub":"u","iss":"https://issuer","aud":["x","web"]}"#, Ok(())),
        (r#"{"sub":"u","iss":"https://issuer"}"#, Err(IdentityError::Audience)),
        (r#"{"sub":"u","iss":"https://issuer","aud":[]}"#, Err(IdentityError::Audience)),
        (r#"{"sub":"u","iss":"https://issuer","aud":"API"}"#, Err(IdentityError::Audience)),
        (r#"{"sub":"u","iss":"https://issuer","aud":{"api":1}}"#, Err(IdentityError::Claims)),
        (r#"{"sub":"u","iss":"https://issuer/","aud":"api"}"#, Err(IdentityError::Issuer)),
        (r#"{"sub":"u","aud":"api"}"#, Err(IdentityError::Issuer)),
    ] {
        let found = user_of(&users, &bearing(&token(payload))).map(|_| ());
        assert_eq!(found, expected, "{payload}");
    }
}

#[test]
fn a_token_may_stand_in_another_field_or_in_a_cookie() {
    let token = token(r#"{"sub":"u1"}"#);
    let mut rules = rules([VerificationKey::secret(SECRET)]);
    rules.location = TokenLocation::Field("x-jwt".parse().unwrap());
    let by_field = users(rules.clone());
    for value in [token.clone(), format!("Bearer {token}")] {
        assert!(user_of(&by_field, &fields(&[("x-jwt", &value)])).is_ok());
    }
    assert_eq!(user_of(&by_field, &bearing(&token)).map(|_| ()), Err(IdentityError::NoToken));
    rules.location = TokenLocation::Cookie("session".into());
    let by_cookie = users(rules);
    for (line, expected) in [
        (format!("a=b; session={token}; c=d"), Ok(())),
        (format!("session={token}"), Ok(())),
        (format!("Session={token}"), Err(IdentityError::NoToken)),
        (format!("xsession={token}"), Err(IdentityError::NoToken)),
        (format!("session={token}; session={token}"), Err(IdentityError::Twice)),
        (format!("session={token}; Session=x"), Err(IdentityError::Twice)),
        ("session=".to_owned(), Err(IdentityError::Form)),
    ] {
        let found = user_of(&by_cookie, &fields(&[("cookie", &line)])).map(|_| ());
        assert_eq!(found, expected, "{line}");
    }
    assert!(by_cookie.uses_field(&header::COOKIE) && !by_cookie.uses_field(&header::AUTHORIZATION));
    assert_eq!(by_cookie.cookie(), Some("session"));
}

#[test]
fn one_token_has_one_digest_however_it_is_sent() {
    let users = by_secret();
    let token = token(r#"{"sub":"u1"}"#);
    let of =
        |value: &str| user_of(&users, &fields(&[("authorization", value)])).unwrap().credential;
    assert_eq!(of(&format!("Bearer {token}")), of(&format!("bEARER   {token}")));
}

proptest! {
    /// Any changed byte makes another token, except for the case of `Bearer` and blanks after it.
    #[test]
    fn no_altered_token_is_verified(place in 0_usize..200, byte in 0x21_u8..0x7f, kind in 0_u8..3) {
        let good = token(r#"{"sub":"u1","exp":1800000000,"scope":"read"}"#);
        let mut altered = good.clone().into_bytes();
        let place = place % altered.len();
        match kind {
            0 => altered[place] = byte,
            1 => altered.insert(place, byte),
            _ => drop(altered.remove(place)),
        }
        let altered = String::from_utf8(altered).unwrap();
        let found = user_of(&by_secret(), &bearing(&altered));
        prop_assert!(altered == good || found.is_err());
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_read(header in "\\PC{0,40}", payload in "\\PC{0,80}", value in "[!-~]{0,80}") {
        let users = by_secret();
        let _signed = user_of(&users, &bearing(&signed_with(SECRET, &header, &payload)));
        let _payload = user_of(&users, &bearing(&token(&payload)));
        let _value = user_of(&users, &fields(&[("authorization", &value)]));
    }
}
