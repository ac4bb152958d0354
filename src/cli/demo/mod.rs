//! `larder demo`: shows the product in one command.
//!
//! It runs a slow sample API with Larder in front of it, sends some requests, and prints what
//! happened and what to try next.

mod api;
mod tour;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use clap::Args;

use crate::{
    app::{Node, NodeDependencies, Workers},
    config::{Config, Environment},
    pipeline::Clock,
    server::{self, BoundAddress, Drain, FastPathMode, Listener, Settings},
};
use api::SampleApi;

/// The flags of `larder demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArguments {
    /// The public address of the proxy; port 0 picks a free port.
    #[arg(long, short, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The address of the admin listener, for health checks and metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
    /// Exit after the tour.
    #[arg(long)]
    pub once: bool,
}

/// The configuration of the demo, shown to the user unchanged.
const ROUTES: &str = include_str!("demo.toml");

/// Runs the demo until Ctrl-C, or with `--once` until the tour ends.
pub(crate) fn execute(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let api = Arc::new(SampleApi::default());
    let origin = start_api(&api)?;
    let node = start_larder(arguments, origin)?;
    let Some(larder) = node.tcp_address() else { anyhow::bail!("no TCP address to listen on") };
    println!(
        "A slow sample API listens on http://{origin}, with Larder in front of it on http://{larder}."
    );
    println!("Larder's routes:\n");
    ROUTES.lines().for_each(|line| println!("    {line}"));
    println!();
    tour::walk(larder, &api).await?;
    if !arguments.once {
        suggest(larder, &node);
        tokio::signal::ctrl_c().await?;
    }
    node.drain().await;
    Ok(ExitCode::SUCCESS)
}

fn start_api(api: &Arc<SampleApi>) -> anyhow::Result<SocketAddr> {
    let listener = Listener::bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let BoundAddress::Tcp(address) = listener.local_addr()? else {
        anyhow::bail!("the sample API has no TCP address to listen on")
    };
    let settings = Arc::new(Settings::default());
    tokio::spawn(server::serve(listener, Arc::clone(api), settings, Drain::new()));
    Ok(address)
}

fn start_larder(arguments: &DemoArguments, origin: SocketAddr) -> anyhow::Result<Node> {
    let (listen, admin) = (arguments.listen, arguments.admin);
    let text = format!(
        "listen = \"{listen}\"\norigin = \"http://{origin}\"\n[admin]\nlisten = \"{admin}\"\n\
         [log]\naccess = \"off\"\n{ROUTES}"
    );
    let config = Config::parse(&text, "demo", Environment::empty())?;
    let options = NodeDependencies {
        clock: Clock::System,
        access_log: Box::new(std::io::sink()),
        workers: Workers::CurrentRuntime,
        fast_path: FastPathMode::default(),
    };
    Node::start(&config, options)
}

fn suggest(larder: SocketAddr, node: &Node) {
    println!("\n  Larder keeps serving. Try, in another terminal:\n");
    println!("    curl -i http://{larder}/dashboard/tiles/orders      # twice");
    println!("    curl -i -X PUT http://{larder}/products/1           # then GET it");
    if let Some(admin) = node.admin_address() {
        println!("    curl -s http://{admin}/metrics | grep larder_requests_total");
    }
    println!("\n  Ctrl-C ends the demo. `larder run --origin URL` does this for your API.");
}
