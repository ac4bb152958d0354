//! Compilation of authentication, and checks of the routes that depend on it.

use std::ops::Range;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, header};

use super::problems::Problems;
use crate::{
    config::{
        file::{ConfigFile, GatewayTable, JwtTable, Located, RouteSection, Text, Texts, UserTable},
        report::Finding,
        settings::UserConfig,
        value,
    },
    policy::Partition,
    route::{Route, RouteTable},
    user::{
        DEFAULT_NARROWING_CLAIMS, GatewayRules, IdentitySource, KeySource, TokenLocation,
        TokenRules,
        jwt::{
            algorithm::JwsAlgorithm,
            key::{MIN_SECRET_LENGTH, VerificationKey},
        },
    },
};

/// Compiles `user.jwt` or `user.header`.
pub(super) fn identity_source(table: &UserTable, problems: &mut Problems<'_>) -> IdentitySource {
    match (&table.jwt, &table.header) {
        (None, None) => {
            if let Some(narrows) = &table.narrows {
                let message = "`narrows` has no effect without `jwt` or `header`";
                problems.push(Finding::warning(narrows.span.clone(), message));
            }
            IdentitySource::None
        }
        (Some(_), Some(gateway)) => {
            let message = "`jwt` and `header` exclude each other";
            problems.push(
                Finding::error(Some(gateway.span.clone()), message)
                    .help("if the gateway forwards the token, `jwt` is enough; remove `header`"),
            );
            IdentitySource::None
        }
        (Some(jwt), None) => tokens(jwt, table.narrows.as_ref(), problems)
            .map_or(IdentitySource::None, |rules| IdentitySource::Token(Box::new(rules))),
        (None, Some(gateway)) => self::gateway(gateway, table.narrows.as_ref(), problems)
            .map_or(IdentitySource::None, IdentitySource::Gateway),
    }
}

fn tokens(
    table: &Located<JwtTable>,
    narrows: Option<&Texts>,
    problems: &mut Problems<'_>,
) -> Option<TokenRules> {
    let location = token_location(table, problems);
    let algorithms = algorithms(table.algorithms.as_ref(), problems);
    let keys = keys(table, problems);
    let narrows = match narrows {
        Some(names) => problems.each(Some(names), name).into(),
        None => DEFAULT_NARROWING_CLAIMS.map(Box::from).into(),
    };
    let rules = TokenRules {
        location: location?,
        keys: keys?,
        algorithms,
        audiences: problems.each(table.aud.as_ref(), name).into(),
        issuers: problems.each(table.iss.as_ref(), name).into(),
        claim: match &table.claim {
            Some(text) => problems.read(text, name)?,
            None => "sub".into(),
        },
        narrows,
    };
    check_algorithms(table, &rules, problems);
    Some(rules)
}

fn name(text: &str) -> Result<Box<str>, &'static str> {
    if text.is_empty() { Err("expected a value that is not empty") } else { Ok(text.into()) }
}

fn token_location(table: &Located<JwtTable>, problems: &mut Problems<'_>) -> Option<TokenLocation> {
    match (&table.header, &table.cookie) {
        (None, None) => Some(TokenLocation::Field(header::AUTHORIZATION)),
        (Some(text), None) => problems.read(text, field).map(TokenLocation::Field),
        (None, Some(text)) => problems.read(text, |text| {
            let is_name =
                |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            let fits = !text.is_empty() && text.bytes().all(is_name);
            if fits { Ok(TokenLocation::Cookie(text.into())) } else { Err("invalid cookie name") }
        }),
        (Some(_), Some(cookie)) => {
            problems
                .error(&cookie.span, "the token is in a `header` or in a `cookie`, not in both");
            None
        }
    }
}

fn field(text: &str) -> Result<HeaderName, &'static str> {
    match text.parse() {
        Ok(header::COOKIE) => Err("use `cookie = \"NAME\"` for a token in a cookie"),
        Ok(name) => Ok(name),
        Err(_) => Err("invalid field name"),
    }
}

fn algorithms(texts: Option<&Texts>, problems: &mut Problems<'_>) -> Option<Box<[JwsAlgorithm]>> {
    let words = JwsAlgorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    let texts = texts?;
    Some(texts.iter().filter_map(|text| problems.one_of(Some(text), &words)).collect())
}

/// Compiles the keys that verify tokens. All keys must be of one type.
fn keys(table: &Located<JwtTable>, problems: &mut Problems<'_>) -> Option<KeySource> {
    let is_secret = table.secret.is_some() || table.secrets.is_some();
    let given = [is_secret, table.public_key.is_some(), table.jwks.is_some()];
    match given.into_iter().filter(|given| *given).count() {
        0 => {
            let message = "`user.jwt` has no key to verify tokens";
            problems.push(
                Finding::error(Some(table.span.clone()), message)
                    .help("set `secret`, `public_key` or `jwks`")
                    .doubtful(),
            );
            return None;
        }
        1 => {}
        _ => {
            let message = "`secret`, `public_key` and `jwks` exclude each other";
            problems.push(
                Finding::error(Some(table.span.clone()), message)
                    .help("tokens are verified with one type of key only"),
            );
            return None;
        }
    }
    if let Some(url) = &table.jwks {
        return jwks(url, table, problems);
    }
    if let Some(texts) = &table.public_key {
        return public_keys(texts, problems);
    }
    let texts = table.secrets.iter().flat_map(|texts| texts.iter()).chain(&table.secret);
    let keys: Vec<VerificationKey> = texts.filter_map(|text| secret(text, problems)).collect();
    (!keys.is_empty()).then(|| KeySource::Configured(keys.into()))
}

/// Parses a secret, either plain or in base64 after `base64:`.
fn secret(text: &Text, problems: &mut Problems<'_>) -> Option<VerificationKey> {
    let bytes = match text.strip_prefix("base64:") {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(text.as_bytes().to_vec()),
    };
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
        problems.error(&text.span, "the secret is empty, or not valid base64 after `base64:`");
        return None;
    };
    if bytes.len() < MIN_SECRET_LENGTH {
        let message = format!(
            "the secret has fewer than {MIN_SECRET_LENGTH} bytes: tokens could be forged by guessing it"
        );
        problems.push(
            Finding::warning(text.span.clone(), message)
                .help("use a longer secret, such as the output of `openssl rand -base64 32`"),
        );
    }
    Some(VerificationKey::secret(&bytes))
}

fn public_keys(texts: &Texts, problems: &mut Problems<'_>) -> Option<KeySource> {
    let mut keys = Vec::new();
    for text in texts.iter() {
        match VerificationKey::from_pem(text) {
            Ok(found) => keys.extend(found),
            Err(error) => problems.error(&text.span, error.to_string()),
        }
    }
    (!keys.is_empty()).then(|| KeySource::Configured(keys.into()))
}

fn jwks(url: &Text, table: &Located<JwtTable>, problems: &mut Problems<'_>) -> Option<KeySource> {
    for (given, key) in [(&table.aud, "aud"), (&table.iss, "iss")] {
        if given.as_ref().is_none_or(|texts| texts.is_empty()) {
            let message = format!("`user.jwt` has `jwks` but no `{key}`");
            problems.push(
                Finding::error(Some(table.span.clone()), message).help(
                    "an issuer signs tokens for many applications: restrict them to this one",
                ),
            );
        }
    }
    problems.read(url, |text| value::jwks_url(text).map(KeySource::Jwks))
}

/// Rejects algorithms that no configured key supports.
fn check_algorithms(table: &JwtTable, rules: &TokenRules, problems: &mut Problems<'_>) {
    let (Some(texts), KeySource::Configured(keys)) = (&table.algorithms, &rules.keys) else {
        return;
    };
    for text in texts.iter() {
        let algorithm = JwsAlgorithm::named(text);
        if algorithm.is_some_and(|algorithm| !keys.iter().any(|key| key.is_for(algorithm))) {
            problems.error(&text.span, format!("no configured key supports `{}`", text.as_str()));
        }
    }
}

fn gateway(
    table: &Located<GatewayTable>,
    narrows: Option<&Texts>,
    problems: &mut Problems<'_>,
) -> Option<GatewayRules> {
    let name = problems.required(table.name.as_ref(), &table.span, "user.header", "name")?;
    let name = problems.read(name, field)?;
    let from = problems.each(table.from.as_ref(), value::network);
    if from.is_empty() {
        let message = "`user.header` has no `from`, the addresses of the gateway";
        problems.push(Finding::error(Some(table.span.clone()), message).doubtful());
        return None;
    }
    for text in table.from.iter().flat_map(|texts| texts.iter()) {
        warn_about_everyone(text, problems);
    }
    let narrows = problems.each(narrows, field);
    Some(GatewayRules { name, from: from.into(), narrows: narrows.into() })
}

/// Warns if the gateway network contains all addresses: any client could impersonate any user.
fn warn_about_everyone(text: &Text, problems: &mut Problems<'_>) {
    if value::network(text).is_ok_and(|network| network.prefix_len() == 0) {
        let message = "any client could impersonate any user: this network contains all addresses";
        problems.push(
            Finding::warning(text.span.clone(), message)
                .help("list only the addresses of the gateway"),
        );
    }
}

/// Checks that partitioned routes have a source of identities and a private `client_cache`.
pub(super) fn check(
    file: &ConfigFile,
    routes: &RouteTable,
    (user, is_shared): (&UserConfig, bool),
    problems: &mut Problems<'_>,
) {
    for route in routes.routes() {
        let is_named = |section: &&Located<RouteSection>| {
            section.name.as_ref().is_some_and(|name| name.as_str() == &*route.name)
        };
        if let Some(section) = file.route.iter().find(is_named) {
            let text = section.partition.as_ref().or(section.name.as_ref());
            let span = text.map_or(&section.span, |text| &text.span);
            check_partition(span, route, (user, is_shared), problems);
            check_client_cache(section, route, problems);
        }
    }
    if let Some(text) = &file.defaults.partition {
        check_partition(&text.span, routes.unmatched(), (user, is_shared), problems);
    }
}

fn check_partition(
    span: &Range<usize>,
    route: &Route,
    (user, is_shared): (&UserConfig, bool),
    problems: &mut Problems<'_>,
) {
    let (message, help) = match (&route.rule.partition, &user.identity_source) {
        (Partition::Authenticated | Partition::Claims(_), IdentitySource::None) => (
            "this partition requires authentication",
            "configure `jwt` in `[user]`, or for `authenticated` also `header`",
        ),
        (Partition::Claims(_), IdentitySource::Gateway(_)) => (
            "claims are read from tokens, and `user.header` has none",
            "configure `jwt` in `[user]`, or use `partition = \"user\"`",
        ),
        (Partition::User, IdentitySource::None) if is_shared && user.digest_key.is_none() => (
            "`partition = \"user\"` with Redis requires `user.digest_key` or authentication",
            "set `user.digest_key` to the same 32 random bytes or more on all nodes (`openssl rand -base64 32`), \
             or configure `jwt` or `header` in `[user]`",
        ),
        _ => return,
    };
    problems.push_once(Finding::error(Some(span.clone()), message).help(help));
}

/// Rejects `client_cache` values that allow shared caches to store responses of a partition.
fn check_client_cache(section: &Located<RouteSection>, route: &Route, problems: &mut Problems<'_>) {
    let Some(value) = route.client_cache.as_ref().filter(|_| route.rule.partition.needs_identity())
    else {
        return;
    };
    let directives = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let mut names =
        directives.map(|one| one.split(|byte| *byte == b'=').next().unwrap_or_default());
    let shares = |name: &[u8]| {
        [&b"public"[..], b"s-maxage"]
            .iter()
            .any(|shared| name.trim_ascii().eq_ignore_ascii_case(shared))
    };
    if names.any(shares) {
        let text = section.client_cache.as_ref().or(section.name.as_ref());
        let span = text.map_or(&section.span, |text| &text.span).clone();
        let message =
            "`client_cache` allows downstream caches to share responses of this route's partition";
        problems.push_once(
            Finding::error(Some(span), message)
                .help("remove `public` and `s-maxage`, as in `client_cache = \"max-age=60\"`"),
        );
    }
}
