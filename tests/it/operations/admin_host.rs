//! By which names the admin listener is called.

use crate::support::{
    proxy::{Proxy, request},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

async fn send(proxy: &Proxy, path: &str, host: &str, fields: &[(&str, &str)]) -> Reply {
    let fields = [&[("Host", host)], fields].concat();
    Wire::connect(proxy.admin_address()).await.exchange(request("GET", path, &fields)).await
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_reads_nothing_from_the_admin_listener() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.hosts = [\"larder.example\"]");
        let browser = [("User-Agent", "Mozilla/5.0"), ("Authorization", "Bearer guessed")];
        for path in ["/metrics", "/v1/purges"] {
            let refused = send(&proxy, path, "evil.example:9180", &browser).await;
            assert_eq!(refused.status(), 421, "{path}");
            assert!(refused.body.contains("admin.hosts"), "{}", refused.body);
            for host in ["127.0.0.1:9180", "localhost", "larder.example:9180", "larder"] {
                assert_eq!(send(&proxy, path, host, &browser).await.status(), 200, "{host}{path}");
            }
        }
        assert_eq!(send(&proxy, "/livez", "check.example", &[]).await.status(), 200);
        proxy.reconfigure(&origin.url(), "admin.hosts = [\"*.example\"]");
        assert_eq!(send(&proxy, "/metrics", "evil.example:9180", &browser).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_token_proves_enough_under_any_name() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"");
        let token = [("Authorization", "Bearer secret")];
        assert_eq!(send(&proxy, "/metrics", "larder.ops.example", &token).await.status(), 200);
        assert_eq!(send(&proxy, "/metrics", "larder.ops.example", &[]).await.status(), 401);
    })
    .await;
}
