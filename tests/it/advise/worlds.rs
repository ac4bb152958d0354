//! The APIs of the examples, with users who read and write as their tables assume.

use super::world::{Content, Endpoint, Values, World, get, write};

const TILES: Values =
    Values::Words(&["sales_pulse", "inventory", "fulfillment", "cx", "ops_metrics"]);

/// The API of `examples/dashboard.toml`.
pub(super) fn dashboard() -> World {
    let kpi = Values::Words(&["revenue", "orders", "margin"]);
    let endpoints = vec![
        get("/dashboard/tiles/{}", 900.0, Content::Every(300)).of(TILES),
        get("/dashboard/tiles/{}/trends", 300.0, Content::Every(900)).of(TILES).queries(&[
            "days=30",
            "days=90",
            "days=30&utm_source=mail",
        ]),
        get("/dashboard/kpi/{}", 400.0, Content::Every(300)).of(kpi),
        get("/dashboard/segments/{}", 200.0, Content::Every(900)).of(Values::Words(&[
            "new",
            "returning",
            "vip",
        ])),
        get("/dashboard/growth/{}", 60.0, Content::Every(3600))
            .of(Values::Words(&["milestones", "ytd"])),
        get("/dashboard/sla/{}", 200.0, Content::Live).of(Values::Words(&["breaches", "current"])),
        get("/dashboard/escalations/urgent", 100.0, Content::Live),
        get("/checkout/inventory/{}", 600.0, Content::Live).of(Values::Numbers(200)),
    ];
    World { hours: 24.0, clients: 300, endpoints }
}

/// The API of `examples/shop.toml`.
pub(super) fn shop() -> World {
    let endpoints = vec![
        get("/brands", 60.0, Content::Never),
        get("/units", 60.0, Content::Never),
        get("/categories", 120.0, Content::Never),
        get("/categories/{}", 240.0, Content::Never).of(Values::Numbers(20)),
        get("/products", 400.0, Content::Written(&["products", "sales"])).queries(&[
            "category=1",
            "category=2&page=1",
            "page=1&category=2",
            "category=1&utm_source=mail&utm_medium=x",
            "category=3&_={now}",
        ]),
        get("/products/{}", 900.0, Content::Written(&["product {}"])).of(Values::Numbers(100)),
        get("/products/{}/variants", 300.0, Content::Written(&["product {}"]))
            .of(Values::Numbers(100)),
        write("PUT", "/products/{}", 10.0, &["product {}", "products"]).of(Values::Numbers(100)),
        write("POST", "/products", 1.0, &["products"]),
        write("POST", "/sales", 60.0, &["sales"]),
        get("/sales", 60.0, Content::Live),
        get("/stock/adjustments", 60.0, Content::Live),
        write("POST", "/stock/adjustments", 30.0, &[]),
    ];
    World { hours: 24.0, clients: 300, endpoints }
}

/// The API of `examples/analysis.toml`.
pub(super) fn analysis() -> World {
    let endpoints = vec![
        write("POST", "/sessions", 40.0, &[]),
        get("/sessions/{}", 200.0, Content::Never).of(Values::Tokens),
        get("/analyses/stats/{}", 200.0, Content::Every(3600))
            .of(Values::Words(&["daily", "weekly", "monthly"])),
        get("/analyses/{}", 900.0, Content::Every(300)).of(Values::Numbers(100)),
        get("/analyses", 600.0, Content::Every(60)).queries(&[
            "",
            "status=done",
            "status=done&page=2",
            "page=2&status=done",
            "_={now}",
        ]),
        get("/configuration/{}", 120.0, Content::Never)
            .of(Values::Words(&["app", "features", "limits"])),
    ];
    World { hours: 72.0, clients: 300, endpoints }
}

/// The trading journal of `bench/journal`: all of it is behind a login.
pub(super) fn journal() -> World {
    let mut endpoints = vec![
        get("/api/market/quotes", 600.0, Content::Every(120))
            .queries(&["symbols=AAPL,MSFT", "symbols=MSFT,AAPL", "symbols=NVDA"])
            .behind_login(),
        get("/api/market/movers", 300.0, Content::Every(120)).behind_login(),
        get("/api/notebook/holidays", 200.0, Content::Never).behind_login(),
        get("/api/notebook/notes", 600.0, Content::Written(&["notes"])).personal(),
        write("POST", "/api/notebook/notes", 30.0, &["notes"]).personal(),
        write("POST", "/user/initialize", 60.0, &[]).personal(),
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
    World { hours: 24.0, clients: 200, endpoints }
}

/// Lists, items and analytics of one kind, which a write of their user changes.
fn kind([list, analytics, item]: [&'static str; 3], resource: &'static str) -> Vec<Endpoint> {
    let items: &'static str = Box::leak(format!("{resource} {{}}").into_boxed_str());
    let both: &'static [&'static str] = Box::leak(Box::new([resource, items]));
    let changes = &both[..1];
    let changing = Content::Written(changes);
    let mut endpoints = vec![
        get(list, 800.0, changing).personal(),
        get(item, 200.0, Content::Written(&both[1..])).of(Values::Numbers(5)).personal(),
        write("POST", list, 30.0, changes).personal(),
        write("PUT", item, 20.0, both).of(Values::Numbers(5)).personal(),
        write("DELETE", item, 5.0, both).of(Values::Numbers(5)).personal(),
    ];
    if !analytics.is_empty() {
        let analytics = get(analytics, 600.0, changing).queries(&["range=30d", "range=90d"]);
        endpoints.push(analytics.personal());
    }
    endpoints
}
