//! The demo's tour: a few requests, each with a line about its result.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Style};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::api::SampleApi;

/// Sends the requests of the demo's tour and prints the results.
pub(super) async fn walk(larder: SocketAddr, api: &SampleApi) -> anyhow::Result<()> {
    let tour = Tour { larder };
    println!("  {:<34} {:<12} {:>9}   what happened", "request", "X-API-Cache", "took");
    tour.tiles().await?;
    tour.summary().await?;
    tour.product().await?;
    tour.step(Method::GET, "/cart", "private: not stored").await?;
    tour.crowd(api).await
}

struct Tour {
    larder: SocketAddr,
}

impl Tour {
    async fn tiles(&self) -> anyhow::Result<()> {
        let tile = "/dashboard/tiles/revenue";
        self.step(Method::GET, tile, "nothing stored: fetched from the API").await?;
        self.step(Method::GET, tile, "from memory, without the API").await?;
        self.step(Method::HEAD, tile, "HEAD uses the same stored response").await
    }

    async fn summary(&self) -> anyhow::Result<()> {
        let path = "/sales/summary";
        self.step(Method::GET, path, "the API sets max-age=5, stale-while-revalidate=60").await?;
        self.step(Method::GET, path, "fresh").await?;
        tokio::time::sleep(Duration::from_millis(6100)).await;
        self.step(Method::GET, path, "6 s later: served stale, refreshed in the background")
            .await?;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        self.step(Method::GET, path, "refreshed").await
    }

    async fn product(&self) -> anyhow::Result<()> {
        let path = "/products/1";
        self.step(Method::GET, path, "the API sets no-cache and an ETag").await?;
        self.step(Method::GET, path, "the API responded 304: no body was sent twice").await?;
        self.step(Method::PUT, path, "a write: passed through, invalidates").await?;
        self.step(Method::GET, path, "so the next read is fetched again").await
    }

    /// Sends many concurrent requests for the same cold, slow resource.
    async fn crowd(&self, api: &SampleApi) -> anyhow::Result<()> {
        const CLIENTS: usize = 200;
        let (before, started) = (api.requests(), Instant::now());
        let requests = (0..CLIENTS).map(|_| self.send(Method::GET, "/dashboard/tiles/crowd"));
        futures_util::future::try_join_all(requests).await?;
        let requests = api.requests() - before;
        println!(
            "\n  {CLIENTS} clients requested one cold tile at once: the API received {} in {} ms.",
            if requests == 1 { "one request".to_owned() } else { format!("{requests} requests") },
            started.elapsed().as_millis(),
        );
        Ok(())
    }

    async fn step(&self, method: Method, path: &str, meaning: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        let response = self.send(method.clone(), path).await?;
        let took = started.elapsed();
        let cache = response.headers().get("x-api-cache").and_then(|value| value.to_str().ok());
        let cache = cache.unwrap_or("-");
        let style = style_of(cache);
        anstream::println!(
            "  {:<34} {style}{cache:<12}{style:#} {:>6.1} ms   {meaning}",
            format!("{method} {path}"),
            took.as_secs_f64() * 1e3,
        );
        Ok(())
    }

    async fn send(&self, method: Method, path: &str) -> anyhow::Result<Response<Bytes>> {
        let stream = TcpStream::connect(self.larder).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.larder.to_string())
            .body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

fn style_of(cache: &str) -> Style {
    let color = match cache {
        "HIT" | "REVALIDATED" => AnsiColor::Green,
        "STALE" => AnsiColor::Yellow,
        _ => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(color.into())).bold()
}
