//! Schedules and polls of a node.

use crate::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

#[tokio::test]
async fn a_new_data_version_purges_and_is_told() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/version" => OriginResponse::ok(format!("{{\"loaded\":{}}}", request.before.min(1))),
            _ => OriginResponse::fresh(request.before.to_string()).with("xkey", "sales"),
        })
        .await;
        let toml = format!(
            "[[poll]]\nname = \"druid\"\nurl = \"{}/version\"\nevery = \"1s\"\n\
             version = \"$.loaded\"\npurge = [\"sales\"]\n[events]\ntags = [\"sales\"]\n",
            origin.url()
        );
        let proxy = Proxy::with(&origin.url(), &toml);
        proxy.get("/a").await;
        while proxy.get("/a").await.body == "0" {
            tokio::task::yield_now().await;
        }
        while !proxy.get("/_larder/version").await.body.contains("\"version\":\"1\"") {
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 1");
    })
    .await;
}
