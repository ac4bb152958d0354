//! By which names the admin listener is called.

use crate::support::{
    proxy::{Proxy, request},
    script::{Said, Scripted},
    wire::{Reply, Wire},
    within,
};

async fn ask(proxy: &Proxy, path: &str, host: &str, fields: &[(&str, &str)]) -> Reply {
    let fields = [&[("Host", host)], fields].concat();
    Wire::connect(proxy.admin_address()).await.exchange(request("GET", path, &fields)).await
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_reads_nothing_from_the_admin_listener() {
    within(async {
        let origin = Scripted::always(Said::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.hosts = [\"larder.example\"]");
        let browser = [("User-Agent", "Mozilla/5.0"), ("Authorization", "Bearer guessed")];
        for path in ["/metrics", "/v1/purges"] {
            let refused = ask(&proxy, path, "evil.example:9180", &browser).await;
            assert_eq!(refused.status(), 421, "{path}");
            assert!(refused.body.contains("admin.hosts"), "{}", refused.body);
            for host in ["127.0.0.1:9180", "localhost", "larder.example:9180", "larder"] {
                assert_eq!(ask(&proxy, path, host, &browser).await.status(), 200, "{host}{path}");
            }
        }
        assert_eq!(ask(&proxy, "/livez", "check.example", &[]).await.status(), 200);
        proxy.reconfigure(&origin.url(), "admin.hosts = [\"*.example\"]");
        assert_eq!(ask(&proxy, "/metrics", "evil.example:9180", &browser).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_token_proves_enough_under_any_name() {
    within(async {
        let origin = Scripted::always(Said::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"");
        let token = [("Authorization", "Bearer secret")];
        assert_eq!(ask(&proxy, "/metrics", "larder.ops.example", &token).await.status(), 200);
        assert_eq!(ask(&proxy, "/metrics", "larder.ops.example", &[]).await.status(), 401);
    })
    .await;
}
