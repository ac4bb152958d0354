//! Where a process listens.

use std::{net::Ipv6Addr, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use tokio::net::UnixStream;

use super::free_address;
use crate::{
    lifecycle::File,
    support::{
        process::{Process, command},
        proxy::request,
        script::{OriginResponse, ScriptedOrigin},
        wire::Wire,
        within,
    },
};

#[tokio::test]
async fn ipv4_and_ipv6_share_a_port() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let port = free_address().port();
        let (v4, v6) = (format!("127.0.0.1:{port}"), format!("[::]:{port}"));
        let any = format!("0.0.0.0:{port}");
        let url = origin.url();
        let arguments =
            ["--origin", &url, "--listen", &any, "--listen", &v6, "--admin", "127.0.0.1:0"];
        let process = Process::run(&arguments).await;
        process.wait_for_message(&format!("listening on {v6}")).await;
        for address in [v4.parse().unwrap(), (Ipv6Addr::LOCALHOST, port).into()] {
            let mut wire = Wire::connect(address).await;
            assert_eq!(wire.exchange(request("GET", "/a", &[])).await.status(), 200, "{address}");
        }
    })
    .await;
}

async fn send(path: &Path) -> u16 {
    let mut wire = Wire::new(UnixStream::connect(path).await.unwrap());
    wire.exchange(request("GET", "/livez", &[])).await.status()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn unix_sockets_have_their_permissions_and_are_removed_at_the_end() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let at = |name: &str| file.0.path().join(name);
        let [open, closed, admin] = [at("open.sock"), at("closed.sock"), at("admin.sock")];
        file.write_raw(&format!(
            "listen = [\"127.0.0.1:0\", \"unix:{}\", \"unix:{}?mode=0660\"]\norigin = \"{}\"\n\
             [admin]\nlisten = \"unix:{}\"\n",
            open.display(),
            closed.display(),
            origin.url(),
            admin.display(),
        ));
        drop(std::os::unix::net::UnixListener::bind(&open).unwrap());
        let path = file.path();
        let arguments = ["--config", path.to_str().unwrap()];
        let mut child = command(&arguments).stderr(Stdio::null()).spawn().unwrap();
        while UnixStream::connect(&admin).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!([mode(&open), mode(&closed), mode(&admin)], [0o666, 0o660, 0o600]);
        assert_eq!((send(&open).await, send(&closed).await, send(&admin).await), (200, 200, 200));
        let (status, printed) = Process::run_to_failure(&arguments);
        assert!(!status.success() && printed.contains("cannot listen on unix:"), "{printed}");
        assert_eq!(send(&open).await, 200, "the socket of a live process stays");
        crate::support::process::signal(child.id(), "TERM");
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(status.success());
        assert!(!open.exists() && !closed.exists() && !admin.exists());
    })
    .await;
}
