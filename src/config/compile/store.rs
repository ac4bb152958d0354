//! Compilation of `[store]`.

use super::problems::Problems;
use crate::{
    config::{
        file::{Located, StoreTable, StoreTlsTable, Text},
        flags::CliOverrides,
        report::Finding,
        secret::Secret,
        settings::StoreConfig,
    },
    key::digest::MIN_DIGEST_KEY_LENGTH,
    purge::UnsyncedPolicy,
    redis,
};

/// Compiles `[store]`.
pub(super) fn compile(
    table: &StoreTable,
    flags: &CliOverrides,
    problems: &mut Problems<'_>,
) -> StoreConfig {
    let defaults = StoreConfig::default();
    let redis = redis(table, flags, problems);
    let memory = problems.size(table.memory.as_ref()).unwrap_or(defaults.memory);
    let max_object = problems.size(table.max_object.as_ref()).unwrap_or(defaults.max_object);
    if let Some(text) = &table.max_object
        && redis.is_none()
        && memory > 0
        && max_object > memory
    {
        let message = "`max_object` is larger than `memory`";
        problems.push(Finding::warning(text.span.clone(), message));
    }
    StoreConfig {
        redis,
        timeout: problems.positive_duration(table.timeout.as_ref()).unwrap_or(defaults.timeout),
        prefix: name(table.prefix.as_ref(), problems).unwrap_or(defaults.prefix),
        version: name(table.version.as_ref(), problems).unwrap_or(defaults.version),
        grace: problems.duration(table.grace.as_ref()).unwrap_or(defaults.grace),
        compress_above: problems
            .size(table.compress_above.as_ref())
            .unwrap_or(defaults.compress_above),
        encrypt_keys: encrypt_keys(table, problems),
        memory,
        max_object,
        unsynced: unsynced(table, problems).unwrap_or(defaults.unsynced),
    }
}

fn unsynced(table: &StoreTable, problems: &mut Problems<'_>) -> Option<UnsyncedPolicy> {
    let bounded = problems.duration(table.unsynced_ttl.as_ref()).map(UnsyncedPolicy::Bounded);
    let choices = [("bounded", bounded), ("serve", Some(UnsyncedPolicy::Serve))];
    problems.one_of(table.when_unsynced.as_ref(), &choices).unwrap_or(bounded)
}

fn redis(
    table: &StoreTable,
    flags: &CliOverrides,
    problems: &mut Problems<'_>,
) -> Option<redis::Settings> {
    let written = table.redis.as_ref().and_then(|url| match redis::Settings::parse(url) {
        Ok(settings) => Some(settings),
        Err(error) => {
            problems.push(
                Finding::error(Some(url.span.clone()), error.to_string())
                    .help("set `redis = \"redis://user:password@host:6379/0\"`"),
            );
            None
        }
    });
    let Some(mut settings) = flags.redis.clone().or(written) else {
        warn_about_redis_keys(table, problems);
        return None;
    };
    if let Some(token) = &table.token {
        if settings.password.is_some() {
            problems.error(&token.span, "the URL already has a password");
        }
        settings.password = Some(redis::Password::new(token.as_str()));
    }
    if let Some(tls) = &table.tls {
        set_tls(&mut settings, tls, problems);
    }
    Some(settings)
}

/// Warns about keys of `[store]` that have no effect without `store.redis`.
fn warn_about_redis_keys(table: &StoreTable, problems: &mut Problems<'_>) {
    let tls = table.tls.as_ref().map(|tls| (&tls.span, "tls"));
    let token = table.token.as_ref().map(|token| (&token.span, "token"));
    let key = table.encrypt_key.as_ref().map(|key| (&key.span, "encrypt_key"));
    let keys = table.encrypt_keys.as_ref().map(|keys| (&keys.span, "encrypt_keys"));
    if table.redis.is_some() {
        return;
    }
    for (span, key) in [tls, token, key, keys].into_iter().flatten() {
        let message = format!("`store.{key}` has no effect without `store.redis`");
        problems.push(Finding::warning(span.clone(), message));
    }
}

/// Compiles the encryption secrets; the first one encrypts.
fn encrypt_keys(table: &StoreTable, problems: &mut Problems<'_>) -> Vec<Secret> {
    if let (Some(_), Some(keys)) = (&table.encrypt_key, &table.encrypt_keys) {
        let message = "`encrypt_key` and `encrypt_keys` exclude each other";
        let help = "list all keys in `encrypt_keys`: the first encrypts, all decrypt";
        problems.push(Finding::error(Some(keys.span.clone()), message).help(help));
    }
    if let Some(keys) = table.encrypt_keys.as_ref().filter(|keys| keys.is_empty()) {
        let message = "`encrypt_keys` is empty: entries would not be encrypted";
        let help = "remove it if that is intended";
        problems.push(Finding::error(Some(keys.span.clone()), message).help(help));
    }
    let several = table.encrypt_keys.iter().flat_map(|keys| keys.iter());
    let texts: Vec<&Text> = table.encrypt_key.iter().chain(several).collect();
    for text in texts.iter().filter(|text| text.len() < MIN_DIGEST_KEY_LENGTH) {
        let message = format!("expected a key of at least {MIN_DIGEST_KEY_LENGTH} bytes");
        let help = "use a random one, such as the output of `openssl rand -base64 32`";
        problems.push(Finding::error(Some(text.span.clone()), message).help(help));
    }
    texts.into_iter().map(|text| Secret::new(text.as_str())).collect()
}

fn set_tls(
    settings: &mut redis::Settings,
    table: &Located<StoreTlsTable>,
    problems: &mut Problems<'_>,
) {
    let Some(tls) = &mut settings.tls else {
        let message = "`store.tls` has no effect without a `rediss` URL";
        problems.push(Finding::warning(table.span.clone(), message));
        return;
    };
    problems.together((&table.cert, &table.key));
    let path = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().into());
    *tls =
        redis::TlsSettings { ca: path(&table.ca), cert: path(&table.cert), key: path(&table.key) };
}

/// Parses a part of a Redis key. Rejects braces, which would change the key's slot in a cluster.
fn name(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<String> {
    problems.read(text?, |text| {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'*');
        if !text.is_empty() && text.bytes().all(is_plain) {
            Ok(text.to_owned())
        } else {
            Err("expected visible ASCII characters without braces, such as `shop`")
        }
    })
}
