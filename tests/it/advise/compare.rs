//! The proposals for the examples' APIs against the tables that people wrote for them.
//!
//! Both tables are asked about the same requests. They have to agree on what is cached and who
//! shares it. Each other difference is listed here, and the proposal has to give its reason.

use std::{collections::BTreeMap, path::Path};

use http::Method;
use larder::testing::{
    config::{Config, Environment},
    key::uri::PathReadings,
};

use super::{advise, configuration, world::World, worlds};

/// The settings for a request, as text by key.
fn settings(config: &Config, path: &str) -> (String, BTreeMap<&'static str, String>) {
    let readings = PathReadings::of(path);
    let route = config.routes.select(&Method::GET, "", &readings).route;
    let rule = &route.rule;
    let list = |items: &[String]| items.join(" ");
    let names = |items: &mut dyn Iterator<Item = String>| list(&items.collect::<Vec<_>>());
    let only = route.query.only.as_deref().unwrap_or_default();
    let mut settings = BTreeMap::from([
        ("cache", rule.cache.to_string()),
        ("partition", rule.partition.to_string()),
        ("ttl", format!("{:?}", rule.ttl.successes_only())),
        ("stale_while_revalidate", format!("{:?}", rule.stale_while_revalidate)),
        ("query.only", names(&mut only.iter().map(ToString::to_string))),
        ("query.ignore", names(&mut route.query.ignore.iter().map(ToString::to_string))),
        ("query.sort", format!("{:?}", route.query.order)),
        ("tags", names(&mut route.tags.iter().map(ToString::to_string))),
        ("on_write", names(&mut route.purged_on_write.iter().map(ToString::to_string))),
        ("vary", names(&mut route.vary.headers.iter().map(ToString::to_string))),
        ("client_cache", format!("{:?}", route.client_cache)),
    ]);
    if !rule.cache {
        settings.retain(|key, _| matches!(*key, "cache" | "on_write"));
    }
    (route.name.to_string(), settings)
}

/// The keys of a request's settings that differ, and the name of the proposed route.
fn differences(proposed: &Config, written: &Config, path: &str) -> (String, Vec<&'static str>) {
    let (name, proposed) = settings(proposed, path);
    let (_, mut written) = settings(written, path);
    // The journal has one route for all kinds of data.
    let kind = path.split('/').nth(2).unwrap_or_default();
    for text in written.values_mut() {
        *text = text.replace("{kind}", kind);
    }
    let keys = proposed.keys().chain(written.keys()).copied();
    let mut differing: Vec<&str> =
        keys.filter(|key| proposed.get(key) != written.get(key)).collect();
    differing.sort_unstable();
    differing.dedup();
    (name, differing)
}

/// The lines of a proposed route.
fn block<'a>(proposal: &'a str, name: &str) -> &'a str {
    let named = format!("[[route]]\nname = \"{name}\"\n");
    let (_, rest) = proposal.split_once(&named).unwrap_or_else(|| panic!("{name}\n{proposal}"));
    rest.split("\n\n").next().unwrap()
}

/// Returns whether a proposal gives the reason for a setting, or says that it cannot know it.
fn is_explained(proposal: &str, name: &str, key: &str) -> bool {
    let (_, limits) = proposal.split_once("# Not visible in the log:\n").unwrap();
    let has_reason = |start: &str| {
        let mut lines = block(proposal, name).lines();
        lines.any(|line| line.starts_with(start) && line.contains("  # "))
    };
    match key {
        "ttl" => has_reason("ttl = "),
        "stale_while_revalidate" => has_reason("stale_while_revalidate = "),
        "on_write" => has_reason("on_write = ") || limits.contains("  changes from outside: "),
        "tags" => has_reason("tags = ") && limits.contains("  names and tags: "),
        "query.only" => limits.contains("`query.only` is stricter than `ignore`"),
        "query.ignore" | "query.sort" => {
            has_reason("query = ") || limits.contains("`query.only` is stricter than `ignore`")
        }
        "vary" => limits.contains("  vary: "),
        "client_cache" => limits.contains("  client_cache, "),
        _ => false,
    }
}

/// Compares a proposal with a table. Returns the differing keys of each path, without those that
/// differ everywhere as a matter of taste.
fn compared(world: &World, written: &str, paths: &[&str]) -> Vec<String> {
    let proposal = advise(&world.log(7));
    let proposed = configuration(&proposal);
    let environment = Environment {
        variable: &|name| {
            Some(match name {
                "PORT" | "ADMIN_PORT" => "1".to_owned(),
                "JOURNAL" => "http://journal".to_owned(),
                "REDIS" => "redis://redis".to_owned(),
                _ => "secret".repeat(8),
            })
        },
        file: &|_| Err(std::io::ErrorKind::NotFound.into()),
    };
    let written = Config::parse(written, "written.toml", environment).unwrap();
    let mut found = Vec::new();
    for path in paths {
        let (name, keys) = differences(&proposed, &written, path);
        for key in &keys {
            assert!(is_explained(&proposal, &name, key), "{path}: {key}\n{proposal}");
        }
        let notable = keys.iter().filter(|key| !matches!(**key, "tags" | "stale_while_revalidate"));
        let notable: Vec<&str> = notable.copied().collect();
        if !notable.is_empty() {
            found.push(format!("{path}: {}", notable.join(", ")));
        }
    }
    found
}

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_table_of_the_dashboard_is_proposed() {
    let paths = [
        "/dashboard/tiles/sales_pulse",
        "/dashboard/tiles/cx/trends",
        "/dashboard/kpi/revenue",
        "/dashboard/segments/vip",
        "/dashboard/growth/ytd",
        "/dashboard/sla/breaches",
        "/dashboard/escalations/urgent",
        "/checkout/inventory/17",
    ];
    let found = compared(&worlds::dashboard(), &file("examples/dashboard.toml"), &paths);
    assert_eq!(
        found,
        ["/dashboard/tiles/cx/trends: client_cache, query.ignore, query.only, query.sort"]
    );
}

#[test]
fn the_table_of_the_shop_is_proposed() {
    let paths = [
        "/brands",
        "/units",
        "/categories",
        "/categories/7",
        "/products",
        "/products/17",
        "/products/17/variants",
        "/sales",
        "/stock/adjustments",
    ];
    let found = compared(&worlds::shop(), &file("examples/shop.toml"), &paths);
    // Nothing but writes changes products, and each write purges, so they may be kept for longer.
    assert_eq!(
        found,
        [
            "/brands: ttl",
            "/units: ttl",
            "/categories: ttl, vary",
            "/categories/7: ttl, vary",
            "/products: on_write, query.ignore, ttl",
            "/products/17: on_write, ttl",
            "/products/17/variants: ttl",
            "/sales: on_write",
        ]
    );
}

#[test]
fn the_table_of_the_analysis_api_is_proposed() {
    let paths = [
        "/sessions/0123456789abcdef",
        "/analyses/stats/daily",
        "/analyses/17",
        "/analyses",
        "/configuration/app",
    ];
    let found = compared(&worlds::analysis(), &file("examples/analysis.toml"), &paths);
    assert_eq!(found, ["/configuration/app: ttl"]);
}

#[test]
fn the_table_of_the_journal_is_proposed() {
    let paths = [
        "/api/market/quotes",
        "/api/market/movers",
        "/api/notebook/holidays",
        "/api/notebook/notes",
        "/api/stocks",
        "/api/stocks/3",
        "/api/stocks/analytics",
        "/api/options",
        "/api/options/3",
        "/api/options/analytics",
        "/api/trade-notes",
        "/api/trade-notes/3",
        "/api/playbook",
        "/api/playbook/3",
    ];
    let found = compared(&worlds::journal(), &file("bench/journal/proxy.toml"), &paths);
    // Nothing but their own writes changes the data of users, and each write purges.
    let own = paths.iter().filter(|path| !path.contains("/market/"));
    let expected = own.map(|path| match *path {
        // The tag has another name.
        "/api/notebook/notes" => format!("{path}: on_write, ttl"),
        path => format!("{path}: ttl"),
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn graphql_is_left_to_the_operator() {
    // The log of the sales analytics shows one path, and no operation.
    let world = worlds::graphql();
    let proposal = advise(&world.log(7));
    configuration(&proposal);
    assert!(!proposal.contains("[[route]]"), "{proposal}");
    assert!(proposal.contains("#   GraphQL: a log does not show operations."), "{proposal}");
}

#[test]
fn spellings_of_a_query_that_bring_the_same_response_are_found() {
    let journal = advise(&worlds::journal().log(7));
    assert!(journal.contains("query = { lists = [\"symbols\"] }"), "{journal}");
    let shop = advise(&worlds::shop().log(7));
    assert!(shop.contains("sort = true, defaults = { page = \"1\" } }"), "{shop}");
}
