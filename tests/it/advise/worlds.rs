//! The APIs of the examples, with users who read and write as their tables assume.

use super::world::{Content, Endpoint, Values, World, get, write};

const TILES: Values =
    Values::Words(&["sales_pulse", "inventory", "fulfillment", "cx", "ops_metrics"]);

/// The API of `examples/dashboard.toml`.
pub(super) fn dashboard() -> World {
    let kpi = Values::Words(&["revenue", "orders", "margin"]);
    let endpoints = vec![
        get("/dashboard/tiles/{}", 900, Content::Every(300)).of(TILES),
        get("/dashboard/tiles/{}/trends", 300, Content::Every(900)).of(TILES).queries(&[
            "days=30",
            "days=90",
            "days=30&utm_source=mail",
        ]),
        get("/dashboard/kpi/{}", 400, Content::Every(300)).of(kpi),
        get("/dashboard/segments/{}", 200, Content::Every(900)).of(Values::Words(&[
            "new",
            "returning",
            "vip",
        ])),
        get("/dashboard/growth/{}", 60, Content::Every(3600))
            .of(Values::Words(&["milestones", "ytd"])),
        get("/dashboard/sla/{}", 200, Content::Live).of(Values::Words(&["breaches", "current"])),
        get("/dashboard/escalations/urgent", 100, Content::Live),
        get("/checkout/inventory/{}", 600, Content::Live).of(Values::Numbers(200)),
    ];
    World { hours: 24, clients: 300, endpoints }
}

/// The API of `examples/shop.toml`.
pub(super) fn shop() -> World {
    let endpoints = vec![
        get("/brands", 60, Content::Never),
        get("/units", 60, Content::Never),
        get("/categories", 120, Content::Never),
        get("/categories/{}", 240, Content::Never).of(Values::Numbers(20)),
        get("/products", 400, Content::Written(&["products", "sales"])).queries(&[
            "category=1",
            "category=2",
            "category=2&page=1",
            "page=1&category=2",
            "category=1&utm_source=mail&utm_medium=x",
            "category=3&_={now}",
        ]),
        get("/products/{}", 900, Content::Written(&["product {}"])).of(Values::Numbers(100)),
        get("/products/{}/variants", 300, Content::Written(&["product {}"]))
            .of(Values::Numbers(100)),
        write("PUT", "/products/{}", 10, &["product {}", "products"]).of(Values::Numbers(100)),
        write("POST", "/products", 1, &["products"]),
        write("POST", "/sales", 60, &["sales"]),
        get("/sales", 60, Content::Live),
        get("/stock/adjustments", 60, Content::Live),
        write("POST", "/stock/adjustments", 30, &[]),
    ];
    World { hours: 24, clients: 300, endpoints }
}

/// The API of `examples/analysis.toml`.
pub(super) fn analysis() -> World {
    let endpoints = vec![
        write("POST", "/sessions", 40, &[]),
        get("/sessions/{}", 200, Content::Never).of(Values::Tokens),
        get("/analyses/stats/{}", 200, Content::Every(3600))
            .of(Values::Words(&["daily", "weekly", "monthly"])),
        get("/analyses/{}", 900, Content::Every(300)).of(Values::Numbers(100)),
        get("/analyses", 600, Content::Every(60)).queries(&[
            "",
            "status=done",
            "status=done&page=2",
            "page=2&status=done",
            "_={now}",
        ]),
        get("/configuration/{}", 120, Content::Never)
            .of(Values::Words(&["app", "features", "limits"])),
    ];
    World { hours: 72, clients: 300, endpoints }
}

/// The trading journal of `bench/journal`: all of it is behind a login.
pub(super) fn journal() -> World {
    let mut endpoints = vec![
        get("/api/market/quotes", 600, Content::Every(120))
            .queries(&["symbols=AAPL,MSFT", "symbols=MSFT,AAPL", "symbols=NVDA"])
            .behind_login(),
        get("/api/market/movers", 300, Content::Every(120)).behind_login(),
        get("/api/notebook/holidays", 200, Content::Never).behind_login(),
        get("/api/notebook/notes", 600, Content::Written(&["notes"])).personal(),
        write("POST", "/api/notebook/notes", 30, &["notes"]).personal(),
        write("POST", "/user/initialize", 60, &[]).personal(),
    ];
    let kinds: [[&'static str; 4]; 4] = [
        ["/api/stocks", "/api/stocks/analytics", "/api/stocks/{}", "stocks"],
        ["/api/options", "/api/options/analytics", "/api/options/{}", "options"],
        ["/api/trade-notes", "", "/api/trade-notes/{}", "trade-notes"],
        ["/api/playbook", "", "/api/playbook/{}", "playbook"],
    ];
    for [list, analytics, item, resource] in kinds {
        endpoints.extend(kind([list, analytics, item], resource));
    }
    World { hours: 24, clients: 200, endpoints }
}

/// Lists, items and analytics of one kind, which a write of their user changes.
fn kind([list, analytics, item]: [&'static str; 3], resource: &'static str) -> Vec<Endpoint> {
    let items: &'static str = Box::leak(format!("{resource} {{}}").into_boxed_str());
    let both: &'static [&'static str] = Box::leak(Box::new([resource, items]));
    let changes = &both[..1];
    let changing = Content::Written(changes);
    let mut endpoints = vec![
        get(list, 800, changing).personal(),
        get(item, 200, Content::Written(&both[1..])).of(Values::Numbers(5)).personal(),
        write("POST", list, 30, changes).personal(),
        write("PUT", item, 20, both).of(Values::Numbers(5)).personal(),
        write("DELETE", item, 5, both).of(Values::Numbers(5)).personal(),
    ];
    if !analytics.is_empty() {
        let analytics = get(analytics, 600, changing).queries(&["range=30d", "range=90d"]);
        endpoints.push(analytics.personal());
    }
    endpoints
}

/// The API of the sales analytics: all queries are sent to one path by `POST`.
pub(super) fn graphql() -> World {
    let endpoints = vec![write("POST", "/graphql", 400, &[])];
    World { hours: 24, clients: 300, endpoints }
}
