//! What counts as a change, however files are replaced.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::{
    lifecycle::{File, IN_FORCE, KEPT},
    support::{
        certificate::SignedCertificate,
        fleet::short_sleep,
        process::Process,
        proxy::request,
        script::{OriginResponse, ScriptedOrigin},
        serving::{FnHandler, TestServer, reply},
        wire::Wire,
        within, within_seconds,
    },
};

/// Whether a token may read metrics.
async fn is_known(process: &Process, token: &str) -> bool {
    let token = format!("Bearer {token}");
    let mut wire = Wire::connect(process.admin).await;
    let asked = request("GET", "/metrics", &[("Authorization", &token)]);
    wire.exchange(asked).await.status() == 200
}

async fn until_known(process: &Process, token: &str) {
    while !is_known(process, token).await {
        tokio::task::yield_now().await;
    }
}

fn config(folder: &Path, origin: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\norigin = \"{origin}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         token = \"${{file:{}/token}}\"\n",
        folder.display()
    )
}

#[tokio::test]
async fn a_secret_is_replaced_in_place_by_a_rename_and_with_its_folder() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let secrets = file.0.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        fs::write(secrets.join("token"), "first").unwrap();
        file.write_raw(&config(&secrets, &origin.url()));
        let process = file.run().await;
        assert!(is_known(&process, "first").await);
        fs::write(secrets.join("token"), "second").unwrap();
        until_known(&process, "second").await;
        assert!(!is_known(&process, "first").await);
        fs::write(secrets.join("new"), "third\n").unwrap();
        fs::rename(secrets.join("new"), secrets.join("token")).unwrap();
        until_known(&process, "third").await;
        fs::remove_dir_all(&secrets).unwrap();
        process.wait_for_message(KEPT).await;
        assert!(is_known(&process, "third").await, "what cannot be read changes nothing");
        fs::create_dir(&secrets).unwrap();
        fs::write(secrets.join("token"), "fourth").unwrap();
        until_known(&process, "fourth").await;
    })
    .await;
}

/// As Kubernetes mounts a `ConfigMap` or a `Secret`.
#[tokio::test]
async fn a_folder_behind_a_link_is_swapped() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let mount = file.0.path().join("mount");
        let release = |name: &str, token: &str| {
            fs::create_dir_all(mount.join(name)).unwrap();
            fs::write(mount.join(name).join("token"), token).unwrap();
            let text = config(&mount, &origin.url());
            fs::write(mount.join(name).join("proxy.toml"), text).unwrap();
            symlink(name, mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        };
        release("..1", "first");
        symlink("..data/token", mount.join("token")).unwrap();
        symlink("..data/proxy.toml", mount.join("proxy.toml")).unwrap();
        let path = mount.join("proxy.toml");
        let process = Process::run(&["--config", path.to_str().unwrap()]).await;
        assert!(is_known(&process, "first").await);
        release("..2", "second");
        until_known(&process, "second").await;
        fs::remove_dir_all(mount.join("..1")).unwrap();
        release("..3", "third");
        until_known(&process, "third").await;
    })
    .await;
}

#[tokio::test]
async fn the_authority_of_an_origin_is_replaced() {
    within(async {
        let (old, new) = (SignedCertificate::new(), SignedCertificate::new());
        let settings = larder::testing::server::Settings {
            tls: Some(new.server.server()),
            ..larder::testing::server::Settings::default()
        };
        let origin =
            TestServer::start(FnHandler(|_, _| std::future::ready(reply(200, "a"))), settings);
        let url = format!("https://localhost:{}", origin.address.port());
        let file = File::new(&url, "");
        let ca = file.0.path().join("ca.pem");
        fs::copy(old.authority(), &ca).unwrap();
        let text = format!(
            "listen = \"127.0.0.1:0\"\n[origin]\nurls = [\"{url}\"]\nretries = 0\n\
             tls = {{ ca = {ca:?} }}\n[admin]\nlisten = \"127.0.0.1:0\"\n"
        );
        file.write_raw(&text);
        let process = file.run().await;
        assert_eq!(process.get("/a").await.status(), 502);
        fs::copy(new.authority(), &ca).unwrap();
        process.wait_for_message(IN_FORCE).await;
        assert_eq!(process.get("/a").await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn other_files_beside_the_configuration_are_no_change() {
    within_seconds(30, async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let log = fs::File::create(file.0.path().join("larder.log")).unwrap();
        let [address, admin] = [super::free_address(), super::free_address()];
        let (listen, at, path) = (address.to_string(), admin.to_string(), file.path());
        let arguments = ["--config", path.to_str().unwrap(), "--listen", &listen, "--admin", &at];
        let outputs = (log.try_clone().unwrap().into(), log.into());
        let process = Process::run_into(&arguments, outputs, [address, admin]).await;
        let printed = || fs::read_to_string(file.0.path().join("larder.log")).unwrap();
        let hosts = format!("hosts = [\"{}\"]", process.address);
        for (text, change) in [&hosts, "", &hosts, ""].into_iter().zip(1..) {
            file.write(&origin.url(), text);
            process.get("/a").await;
            while printed().matches(IN_FORCE).count() < change {
                short_sleep().await;
            }
        }
        // The log has changed with the last reload. Were that a change, two more looks would find it.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        assert_eq!(printed().matches(IN_FORCE).count(), 4, "one for each change: {}", printed());
    })
    .await;
}

#[tokio::test]
async fn a_change_that_needs_a_restart_is_named() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let process = file.run().await;
        file.write(&origin.url(), "[limits]\nconnections = 7");
        process.wait_for_message("a changed setting takes effect only after a restart").await;
        assert!(process.messages().contains("setting=\"limits\""), "{}", process.messages());
    })
    .await;
}
