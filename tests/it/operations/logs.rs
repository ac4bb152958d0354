//! A log that cannot be written holds nothing up and ends nothing.

use std::{
    fs::File as OutputFile,
    io::{PipeReader, PipeWriter, Write as _, pipe},
    process::Stdio,
};

use rustix::io::ioctl_fionbio;

use super::free_address;
use crate::{
    lifecycle::{File, KEPT},
    support::{
        process::{Process, command},
        proxy::sum,
        script::{OriginResponse, ScriptedOrigin},
        within, within_seconds,
    },
};

/// A pipe that takes no more, and its reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b' '; 4096]).is_ok() {}
    ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Starts a node with these outputs, has it serve, reload and drain, and returns its metrics before the end.
async fn serves_and_ends_with(outputs: (Stdio, Stdio)) -> String {
    let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
    let file = File::new(&origin.url(), "");
    let [address, admin] = [free_address(), free_address()];
    let (listen, at) = (address.to_string(), admin.to_string());
    let path = file.path();
    let arguments = ["--config", path.to_str().unwrap(), "--listen", &listen, "--admin", &at];
    let process = Process::run_into(&arguments, outputs, [address, admin]).await;
    process.get("/a").await;
    for _ in 0..200 {
        assert_eq!(process.get("/a").await.summary(), "200 HIT a");
    }
    file.write_raw("origin = 7");
    while sum(&process.get_admin("/metrics").await.body, "larder_config_last_reload_successful", "")
        == 1
    {
        process.signal("HUP");
    }
    file.write(&origin.url(), "[[route]]\nname = \"off\"\nmatch = \"/a\"\ncache = false");
    while process.get("/a").await.cache() != "BYPASS" {}
    assert_eq!(process.get_admin("/livez").await.status(), 200);
    let metrics = process.get_admin("/metrics").await.body;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    metrics
}

#[tokio::test]
async fn logs_that_nobody_reads_hold_nothing_up() {
    within(async {
        let (_stdout, stdout) = full_pipe();
        let (_stderr, stderr) = full_pipe();
        serves_and_ends_with((stdout.into(), stderr.into())).await;
    })
    .await;
}

#[tokio::test]
async fn logs_whose_reader_is_gone_end_nothing() {
    within(async {
        let ((_, stdout), (_, stderr)) = (pipe().unwrap(), pipe().unwrap());
        let metrics = serves_and_ends_with((stdout.into(), stderr.into())).await;
        assert!(sum(&metrics, "larder_log_dropped_total", "") >= 3, "{metrics}");
        assert!(sum(&metrics, "larder_access_log_dropped_total", "") >= 200);
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_ends_nothing() {
    within(async {
        let full = || OutputFile::options().write(true).open("/dev/full").unwrap();
        let metrics = serves_and_ends_with((full().into(), full().into())).await;
        assert!(sum(&metrics, "larder_log_dropped_total", "") >= 3, "{metrics}");
        assert!(sum(&metrics, "larder_access_log_dropped_total", "") >= 200);
    })
    .await;
}

#[tokio::test]
async fn a_start_that_fails_does_not_wait_for_a_reader() {
    within(async {
        for arguments in [
            &["--config", "/nowhere/proxy.toml"][..],
            &["--origin", "http://a", "-l", "192.0.2.1:1"],
        ] {
            let (_reader, stderr) = full_pipe();
            let mut child = command(arguments).stderr(stderr).spawn().unwrap();
            let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
            assert_eq!(status.code(), Some(1));
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_that_repeats_is_counted() {
    within_seconds(40, async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let process = file.run().await;
        file.write_raw("origin = 7");
        let held_back = async || {
            sum(&process.get_admin("/metrics").await.body, "larder_log_repeated_total", "")
        };
        while held_back().await < 3 {
            process.signal("HUP");
        }
        process.signal("TERM");
        assert!(process.ended().await.success());
        process.wait_for_message("(repeated ").await;
        let printed = process.messages();
        assert_eq!(
            printed.matches(KEPT).count(),
            6,
            "five, and what tells of the others: {printed}"
        );
    })
    .await;
}
