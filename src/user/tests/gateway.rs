//! Tests of identities that a gateway asserts.

use std::net::IpAddr;

use super::*;
use crate::user::GatewayRules;

const GATEWAY: &str = "10.1.2.3";

fn by_gateway(narrows: &[&'static str]) -> Authenticator {
    let rules = GatewayRules {
        name: "x-user-id".parse().unwrap(),
        from: ["10.0.0.0/8".parse().unwrap()].into(),
        narrows: narrows.iter().map(|name| name.parse().unwrap()).collect(),
    };
    proven(IdentitySource::Gateway(rules), [Partition::Authenticated, claims(&["tenant"])])
}

fn from(peer: &str) -> IpAddr {
    peer.parse().unwrap()
}

fn found(
    users: &Authenticator,
    partition: &Partition,
    lines: &[(&'static str, &str)],
) -> Result<Arc<PartitionMember>, IdentityError> {
    users.identify_with_cause(partition, (&fields(lines), Some(from(GATEWAY))), NOW)
}

#[test]
fn a_gateway_says_who_asks() {
    let users = by_gateway(&[]);
    for peer in [GATEWAY, "::ffff:10.1.2.3"] {
        let headers = fields(&[("x-user-id", "u1")]);
        let member =
            users.identify_with_cause(&Partition::User, (&headers, Some(from(peer))), NOW).unwrap();
        assert_eq!(member.user.as_deref(), Some("u1"));
        assert_eq!(member.owner, Some(users.owner("", "u1")));
    }
}

#[test]
fn what_others_say_does_not_count() {
    let users = by_gateway(&[]);
    let headers = fields(&[("x-user-id", "u1")]);
    for peer in [Some(from("192.0.2.1")), Some(from("::1")), None] {
        let found = users.identify_with_cause(&Partition::User, (&headers, peer), NOW);
        assert_eq!(found.map(|_| ()), Err(IdentityError::NoUser));
    }
}

#[test]
fn a_gateway_that_names_nobody_or_two_proves_nothing() {
    let users = by_gateway(&[]);
    let (long, tab) = ("a".repeat(257), "a\tb");
    for lines in [
        vec![],
        vec![("x-user-id", "")],
        vec![("x-user-id", long.as_str())],
        vec![("x-user-id", tab)],
        vec![("x-user-id", "u1"), ("x-user-id", "u1")],
        vec![("x-user-id", "u1"), ("x-user-id", "u2")],
    ] {
        let found = found(&users, &Partition::User, &lines).map(|_| ());
        assert_eq!(found, Err(IdentityError::NoUser), "{lines:?}");
    }
}

#[test]
fn what_else_a_gateway_says_narrows_the_user() {
    let users = by_gateway(&["x-plan"]);
    let part = |partition, further: &[(&'static str, &str)]| {
        let lines = [&[("x-user-id", "u1")], further].concat();
        found(&users, partition, &lines).unwrap().partition_digest
    };
    let cases: [&[(&'static str, &str)]; 8] = [
        &[],
        &[("x-forwarded-groups", "a")],
        &[("x-forwarded-groups", "b")],
        &[("x-auth-request-groups", "a")],
        &[("x-auth-request-email", "u1@example.com")],
        &[("x-plan", "pro")],
        &[("x-forwarded-groups", "a"), ("x-forwarded-groups", "b")],
        &[("x-forwarded-groups", "b"), ("x-forwarded-groups", "a")],
    ];
    let parts: std::collections::HashSet<_> =
        cases.iter().map(|further| part(&Partition::User, further)).collect();
    assert_eq!(parts.len(), cases.len());
    let plain = part(&Partition::User, &[]);
    assert_eq!(plain, part(&Partition::User, &[("accept", "*/*"), ("x-request-id", "1")]));
    let all = part(&Partition::Authenticated, &[]);
    assert_eq!(all, part(&Partition::Authenticated, &[("x-auth-request-email", "a@b")]));
    assert_ne!(all, part(&Partition::Authenticated, &[("x-forwarded-groups", "a")]));
}

#[test]
fn users_of_a_gateway_are_apart_and_have_no_claims() {
    let users = by_gateway(&[]);
    let part = |partition, user| {
        found(&users, partition, &[("x-user-id", user)]).map(|member| member.partition_digest)
    };
    assert_ne!(part(&Partition::User, "u1"), part(&Partition::User, "u2"));
    assert_eq!(part(&Partition::Authenticated, "u1"), part(&Partition::Authenticated, "u2"));
    assert_eq!(part(&claims(&["tenant"]), "u1"), Err(IdentityError::NoClaim));
}

#[test]
fn fields_of_a_gateway_are_removed_from_others() {
    let users = by_gateway(&["x-plan"]);
    let left = |peer| {
        let mut headers = fields(&[
            ("x-user-id", "u1"),
            ("x_user_id", "u2"),
            ("x-user_id", "u3"),
            ("x-plan", "pro"),
            ("x_plan", "pro"),
            ("x-user", "u4"),
        ]);
        users.remove_spoofed_fields(&mut headers, peer);
        let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(left(Some(from(GATEWAY))), ["x-plan", "x-user", "x-user-id"]);
    assert_eq!(left(Some(from("192.0.2.1"))), ["x-user"]);
    assert_eq!(left(None), ["x-user"]);
}
