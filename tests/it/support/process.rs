//! `larder run` as a separate process.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::{
    fleet::short_sleep,
    proxy::request,
    wire::{Reply, Wire},
};

/// A running `larder run`, killed on drop.
pub(crate) struct Process {
    child: Arc<Mutex<Child>>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stderr: CapturedOutput,
    stdout: CapturedOutput,
}

/// The output of a process so far.
#[derive(Clone)]
pub(crate) struct CapturedOutput(Arc<watch::Sender<String>>);

impl Process {
    /// Starts a process. The arguments have to configure a TCP listener and an admin listener.
    pub(crate) async fn run(arguments: &[&str]) -> Self {
        Self::run_with(arguments, &[]).await
    }

    /// Starts a process with additional environment variables.
    pub(crate) async fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command(arguments);
        command.envs(environment.iter().copied());
        Self::spawn(command).await
    }

    async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = CapturedOutput::follow(child.stderr.take().unwrap());
        let stdout = CapturedOutput::follow(child.stdout.take().unwrap());
        let admin = stderr.after("health and metrics on ").await.parse().unwrap();
        let address = stderr.after("listening on ").await.parse().unwrap();
        Self { child: Arc::new(Mutex::new(child)), address, admin, stderr, stdout }
    }

    /// Starts a process with a limit on open files, in the syntax of `ulimit` (`-Sn 256`).
    pub(crate) async fn run_with_files(arguments: &[&str], limit: &str) -> Self {
        let plain = command(arguments);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
        limited.arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(limited).await
    }

    /// Returns the soft limit of its open files.
    pub(crate) fn open_files(&self) -> String {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    }

    /// Starts a process with the test's own outputs, and waits until its admin listener responds.
    ///
    /// The arguments have to configure these addresses.
    pub(crate) async fn run_into(
        arguments: &[&str],
        (stdout, stderr): (Stdio, Stdio),
        [address, admin]: [SocketAddr; 2],
    ) -> Self {
        let mut command = command(arguments);
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let child = Arc::new(Mutex::new(child));
        let process = Self {
            child,
            address,
            admin,
            stderr: CapturedOutput::new(),
            stdout: CapturedOutput::new(),
        };
        while Wire::try_connect(admin).await.is_none() {
            assert!(process.child.lock().unwrap().try_wait().unwrap().is_none(), "it has ended");
            short_sleep().await;
        }
        process
    }

    /// Runs a process until it ends by itself.
    pub(crate) fn run_to_failure(arguments: &[&str]) -> (ExitStatus, String) {
        let output = command(arguments).output().unwrap();
        (output.status, String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Kills it, as in a crash.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let child = Arc::clone(&self.child);
        tokio::task::spawn_blocking(move || child.lock().unwrap().wait().unwrap()).await.unwrap()
    }

    /// Waits until its messages contain this text.
    pub(crate) async fn wait_for_message(&self, text: &str) {
        self.stderr.wait_for(text).await;
    }

    /// Returns its messages so far.
    pub(crate) fn messages(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits for this many lines of its access log.
    pub(crate) async fn wait_for_access_log(&self, lines: usize) -> String {
        self.stdout.until(|log| log.matches('\n').count() >= lines).await
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        Wire::connect(self.address).await.exchange(request("GET", target, &[])).await
    }

    pub(crate) async fn get_admin(&self, target: &str) -> Reply {
        Wire::connect(self.admin)
            .await
            .exchange(request("GET", target, &[("Host", "127.0.0.1")]))
            .await
    }

    /// Returns its peak memory in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    /// Returns its current memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    fn memory_line(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ended_already = child.kill();
        let _reaped_already = child.wait();
    }
}

impl CapturedOutput {
    fn new() -> Self {
        Self(Arc::new(watch::channel(String::new()).0))
    }

    pub(crate) fn follow(output: impl Read + Send + 'static) -> Self {
        let captured = Self::new();
        let writer = captured.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                writer.0.send_modify(|text| {
                    text.push_str(&line);
                    text.push('\n');
                });
            }
        });
        captured
    }

    pub(crate) fn so_far(&self) -> String {
        self.0.borrow().clone()
    }

    /// Waits until the output satisfies a condition, and returns all of it.
    pub(crate) async fn until(&self, wanted: impl FnMut(&String) -> bool) -> String {
        self.0.subscribe().wait_for(wanted).await.unwrap().clone()
    }

    async fn wait_for(&self, text: &str) -> String {
        self.until(|text_so_far| text_so_far.contains(text)).await
    }

    /// Waits for the word that follows this text.
    async fn after(&self, text: &str) -> String {
        let captured = self.wait_for(text).await;
        let rest = captured.split_once(text).unwrap().1;
        rest.split_whitespace().next().unwrap().to_owned()
    }
}

/// Sends a signal to a process of this test.
pub(crate) fn signal(id: u32, name: &str) {
    let kill = Command::new("kill").args(["-s", name, &id.to_string()]).status().unwrap();
    assert!(kill.success());
}

/// Waits until a process has stopped after SIGSTOP.
pub(crate) async fn stopped(id: u32) {
    while !std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap().contains(") T ") {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.arg("run").args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["CONFIG", "ORIGIN", "LISTEN", "ADMIN", "ACCESS_LOG", "LOG", "PLANTED"] {
        command.env_remove(format!("LARDER_{name}"));
    }
    command
}
