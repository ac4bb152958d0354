//! `larder advise`: on logs of the examples' APIs it proposes their tables.

mod compare;
mod documented;
mod hostile;
mod shadow;
mod world;
mod worlds;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use larder::testing::config::{Config, Environment};

/// Runs `larder advise` in a directory, with this standard input.
fn run(directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .arg("advise")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that fails early closes its input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// The proposal for a log.
fn advise(log: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("access.log"), log).unwrap();
    let output = run(directory.path(), &["access.log"], b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout).to_owned()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The configuration that a proposal is, without errors and warnings.
fn configuration(proposal: &str) -> Config {
    let file = format!("origin = \"http://127.0.0.1:3000\"\n{proposal}");
    let config = Config::parse(&file, "proposed.toml", Environment::empty())
        .unwrap_or_else(|error| panic!("{error}\n{proposal}"));
    assert!(config.warnings.problems.is_empty(), "{}\n{proposal}", config.warnings);
    config
}
